#!/bin/bash
# Makes the Debian root that holds mkosi and the other tools, once, and prints its path. The name carries a hash of what
# it is made of, so a change makes another one; a lock keeps two builds from making it at the same time.
#
#   tools-root.sh SUITE CACHE
set -euo pipefail

here=$(dirname "$(realpath "$0")")
suite=$1
cache=$2

sources=$("$here/apt-sources.sh" "$suite")
options=$("$here/apt-options.sh")
packages=$(<"$here/../tools-packages")
key=$(printf '%s\n' "$suite" "$sources" "$packages" | sha256sum | cut -c1-16)
root=$cache/tools-$key

mkdir -p "$cache"
exec 9>"$cache/tools-$key.lock"
flock 9
if [[ ! -d $root ]]; then
    rm -rf "$root.new"
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    printf '%s\n' "$options" >"$work/apt.conf"
    printf '%s\n' "$sources" >"$work/debian.sources"
    if ! mmdebstrap --quiet --variant=apt --include="$(tr '\n' ',' <<<"$packages" | sed 's/,*$//')" --aptopt="$work/apt.conf" \
        --format=directory "$suite" "$root.new" "$work/debian.sources" >"$work/log" 2>&1; then
        tail -n 20 "$work/log" >&2
        rm -rf "$root.new"
        echo "tools-root.sh: the root with the image tools could not be made; is mmdebstrap installed and the archive reachable?" >&2
        exit 1
    fi
    mv "$root.new" "$root"
fi
echo "$root"
