#!/bin/sh
# Fills corpus/ from the fixtures of real servers.
set -eu
cd "$(dirname "$0")"
for major in 13 14 15 16 17 18; do
    from=../tests/fixtures/postgres/$major
    mkdir -p corpus/control_file corpus/slot corpus/wal_headers
    head -c 296 "$from/pg_control" >"corpus/control_file/$major"
    for slot in "$from"/*.state; do cp "$slot" "corpus/slot/$major-$(basename "$slot")"; done
    for segment in "$from"/wal/*.gz; do
        gzip -dc "$segment" | head -c 64 >"corpus/wal_headers/$major-$(basename "$segment" .gz)"
    done
done
galera=../tests/fixtures/galera
mkdir -p corpus/grastate corpus/gvwstate corpus/galera_cache corpus/recovered_position corpus/galera_status
for case in "$galera"/*/; do
    name=$(basename "$case")
    cp "$case/grastate.dat" "corpus/grastate/$name"
    if [ -e "$case/gvwstate.dat" ]; then cp "$case/gvwstate.dat" "corpus/gvwstate/$name"; fi
    head -c 200 "$case/galera.cache" >"corpus/galera_cache/$name"
done
cp "$galera/recover.log" corpus/recovered_position/
cp "$galera"/status-*.tsv corpus/galera_status/
