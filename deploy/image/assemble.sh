#!/usr/bin/env bash
# Assembles the root file system of one image: the binary, the shared libraries that it needs, users, CA certificates.
# Used by Dockerfile.agent and Dockerfile.coordinator, and by a test that enters the result with chroot.
set -euo pipefail

usage() {
    echo "usage: $0 agent|coordinator <directory with the built binaries> <empty or missing target directory>" >&2
    exit 2
}

[ $# -eq 3 ] || usage
component=$1 binaries=$2 root=$3
case $component in
    agent) program=hasteward-agent ;;
    coordinator) program=hasteward-coordinator ;;
    *) usage ;;
esac
binary=$binaries/$program
[ -x "$binary" ] || { echo "$binary: no such program; build it first: cargo build --release -p $program" >&2; exit 2; }
if [ -e "$root" ] && [ -n "$(ls -A "$root")" ]; then
    echo "$root: not empty" >&2
    exit 2
fi

install -d -m 0755 "$root"/{bin,etc/ssl/certs,proc,run,sys,tmp,usr/lib,var/lib/hasteward,var/run}
chmod 1777 "$root/tmp"
install -m 0755 "$binary" "$root/bin/$program"

# The libraries, at the very paths where the loader looks for them.
ldd "$binary" | awk '$2 == "=>" && $3 ~ /^\// { print $3 } $1 ~ /^\// { print $1 }' | while read -r library; do
    install -D -m 0755 "$(readlink -f "$library")" "$root$library"
done

printf 'root:x:0:0:root:/:/sbin/nologin\nhasteward:x:65532:65532:hasteward:/:/sbin/nologin\n' > "$root/etc/passwd"
printf 'root:x:0:\nhasteward:x:65532:\n' > "$root/etc/group"
printf 'hosts: files dns\n' > "$root/etc/nsswitch.conf"
if [ -r /etc/ssl/certs/ca-certificates.crt ]; then
    install -m 0644 /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/ca-certificates.crt"
fi
