#!/bin/bash
# Runs a command in a folder that is made the real root of a mount namespace: mkosi sets up its own sandboxes and
# refuses a mere chroot. The machine's mounts are not touched.
#
#   in-root.sh ROOT [SOURCE:TARGET[:ro]]... -- COMMAND...
set -euo pipefail

root=$(realpath "$1")
shift
export PALISADE_ROOT=$root
exec unshare --mount --propagation private bash -euc '
    root=$PALISADE_ROOT
    unset PALISADE_ROOT
    mount --bind "$root" "$root"
    for system in proc sys dev; do mount --rbind /$system "$root/$system"; done
    for temporary in tmp run var/tmp; do mount -t tmpfs -o mode=1777 palisade "$root/$temporary"; done
    while [[ $1 != -- ]]; do
        IFS=: read -r source target mode <<<"$1"
        mkdir -p "$root$target"
        mount --bind "$source" "$root$target"
        [[ ${mode:-} != ro ]] || mount -o remount,bind,ro "$root$target"
        shift
    done
    shift
    mkdir -p "$root/.machine"
    cd "$root"
    pivot_root . .machine
    cd /
    umount -l /.machine
    export HOME=/root PATH=/usr/sbin:/usr/bin:/sbin:/bin
    exec "$@"' in-root "$@"
