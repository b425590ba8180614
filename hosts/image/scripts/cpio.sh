#!/bin/bash
# Packs a folder into a compressed archive for an initrd; the same content gives the same archive.
#
#   cpio.sh FOLDER OUTPUT
set -euo pipefail

folder=$1 output=$2
find "$folder" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
(cd "$folder" && find . -mindepth 1 -print0 | LC_ALL=C sort -z | cpio --null --create --format=newc --reproducible --owner=0:0 --quiet) |
    zstd -q -10 >"$output"
