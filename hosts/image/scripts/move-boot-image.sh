#!/bin/bash
# Makes the firmware find another of a disk's signed kernel images. Runs in the tools root.
#
#   move-boot-image.sh DISK MODE
set -euo pipefail

disk=$1 mode=$2
source "$(dirname "$0")/esp.sh"
boot=::/EFI/BOOT/BOOTX64.EFI
# Which one is there now, its signed command line says.
mtype -i "$esp" "$boot" >/tmp/boot.efi
present=$(grep -aom 1 -E 'palisade\.mode=[a-z]+' /tmp/boot.efi | head -n 1 | cut -d= -f2)
[[ $present != "$mode" ]] || exit 0
mcopy -i "$esp" "::/EFI/palisade/$mode.efi" /tmp/wanted.efi
mdel -i "$esp" "$boot" "::/EFI/palisade/$mode.efi"
mcopy -i "$esp" /tmp/boot.efi "::/EFI/palisade/$present.efi"
mcopy -i "$esp" /tmp/wanted.efi "$boot"
