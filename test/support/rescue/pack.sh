#!/usr/bin/env bash
# Prints a folder as an archive for an initrd.
source "$(dirname "$0")/../../../tools/lib.sh"
hosts/image/scripts/in-root.sh "$(hosts/image/scripts/tools-root.sh trixie "$PALISADE_CACHE/image")" "$(realpath "$1"):/content:ro" -- \
  bash -c 'cd /content && find . -mindepth 1 | cpio --quiet --create --format=newc --owner=0:0' | gzip
