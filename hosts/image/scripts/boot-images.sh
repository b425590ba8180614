#!/bin/bash
# Replaces mkosi's kernel image in a disk by ours: the one of the chosen mode where the firmware looks, those of the
# other modes in /EFI/palisade. Runs in the tools root.
#
#   boot-images.sh DEFINITION DISK ROOT-HASH CHOSEN-MODE KEYS MODE...
set -euo pipefail

definition=$1 disk=$2 root_hash=$3 chosen=$4 keys=$5
shift 5
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

source "$(dirname "$0")/esp.sh"
mcopy -i "$esp" ::/EFI/BOOT/BOOTX64.EFI "$work/mkosi.efi"
mmd -i "$esp" ::/EFI/palisade
for mode; do
    target=/EFI/palisade/$mode.efi
    [[ $mode != "$chosen" ]] || target=/EFI/BOOT/BOOTX64.EFI
    "$definition/scripts/boot-image.sh" "$definition" "$work/mkosi.efi" "$root_hash" "$mode" "$keys" "$work/$mode.efi"
    touch -d "@$SOURCE_DATE_EPOCH" "$work/$mode.efi"
    mcopy -o -m -i "$esp" "$work/$mode.efi" "::$target"
done
