#!/bin/bash
# Makes the signed kernel image of one mode: kernel and initrd of mkosi's image, the mode's command line, its integrity
# policy. All modes boot the same root file system. Runs in the tools root.
#
#   boot-image.sh DEFINITION MKOSI-IMAGE ROOT-HASH MODE KEYS OUTPUT
set -euo pipefail

definition=$1 image=$2 root_hash=$3 mode=$4 keys=$5 output=$6
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

policy=$("$definition/scripts/policy-of-mode.sh" "$definition" "$mode")
command_line=$(cat "$definition/command-line" "$definition/command-line.$mode" | tr '\n' ' ' | sed 's/ *$//')

"$definition/scripts/pe-sections.py" "$image" "$work" .linux .initrd .osrel .uname
mkdir -p "$work/overlay/etc/palisade"
echo "$command_line" >"$work/overlay/etc/palisade/command-line"
# The kernel wants PKCS#7 without attributes, the content inside.
openssl smime -sign -binary -noattr -nodetach -nosmimecap -md sha256 -outform der -signer "$keys/image/ipe-policy.crt" \
    -inkey "$keys/image/ipe-policy.key" -in "$policy" -out "$work/overlay/etc/palisade/ipe-policy.p7b"
"$definition/scripts/cpio.sh" "$work/overlay" "$work/overlay.cpio.zst"

ukify build --linux "$work/linux" --initrd "$work/initrd" --initrd "$work/overlay.cpio.zst" \
    --cmdline "roothash=$root_hash $command_line" --os-release "@$work/osrel" --uname "$(<"$work/uname")" \
    --signtool=sbsign --secureboot-private-key "$keys/secure-boot/db.key" --secureboot-certificate "$keys/secure-boot/db.crt" \
    --output "$output" >/dev/null 2>"$work/log" || { cat "$work/log" >&2; exit 1; }
