#!/bin/sh
# Brings Debian's kubectl of two releases into a directory, without installing anything:
#   <dir>/bookworm/usr/bin/kubectl (1.20), <dir>/trixie/usr/bin/kubectl (1.32)
# apt checks signatures and hashes; its lists and archives stay below <dir>.
# usage: fetch-kubectl.sh <dir>
set -eu
dir=${1:?usage: fetch-kubectl.sh <dir>}
keyring=/usr/share/keyrings/debian-archive-keyring.gpg
# The archive that this machine's apt uses already.
archive=$(apt-get indextargets --format '$(REPO_URI)' | grep '/debian/*$' | head -n 1)
[ -n "$archive" ] || { echo "apt on this machine uses no Debian archive: no kubectl of other releases" >&2; exit 1; }
[ -r "$keyring" ] || { echo "$keyring is missing: install debian-archive-keyring" >&2; exit 1; }
for release in bookworm trixie; do
    [ -x "$dir/$release/usr/bin/kubectl" ] && continue
    # From 1.32 on the program has a package of its own.
    case $release in bookworm) package=kubernetes-client ;; *) package=kubectl ;; esac
    own=$dir/apt-$release
    mkdir -p "$own/lists/partial" "$own/archives/partial" "$own/parts"
    echo "deb [signed-by=$keyring] $archive $release main" >"$own/sources.list"
    : >"$own/status"
    set -- -qq \
        -o "Dir::Etc::sourcelist=$own/sources.list" -o "Dir::Etc::sourceparts=$own/parts" \
        -o "Dir::Etc::preferencesparts=$own/parts" -o "Dir::Etc::preferences=/dev/null" \
        -o "Dir::State::lists=$own/lists" -o "Dir::State::status=$own/status" \
        -o "Dir::Cache=$own" -o "APT::Sandbox::User=root" -o "Acquire::Languages=none"
    apt-get "$@" update
    (cd "$own" && apt-get "$@" download "$package")
    mkdir -p "$dir/$release.new"
    dpkg -x "$own/$package"_*.deb "$dir/$release.new"
    rm -rf "${dir:?}/$release" "$own"
    mv "$dir/$release.new" "$dir/$release"
done
