#!/bin/bash
# Makes the initrd's own part: the init program, and which certificates the firmware has to have. The kernel's modules
# are added by mkosi, what depends on the mode by boot-image.sh. Runs in the tools root.
#
#   initrd.sh PROGRAM KEYS OUTPUT
set -euo pipefail

program=$1 keys=$2 output=$3
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir -p "$work"/{dev,etc/palisade,proc,sys,sysroot,usr/lib}
install -m 755 "$program" "$work/init"
# Lines of a variable and the SHA-256 fingerprint of a certificate in it.
while read -r variable name; do
    fingerprint=$(openssl x509 -in "$keys/$name.crt" -outform der | sha256sum | cut -d' ' -f1)
    echo "$variable $fingerprint"
done <"$(dirname "$0")/../firmware-certificates" >"$work/etc/palisade/firmware-certificates"
"$(dirname "$0")/cpio.sh" "$work" "$output"
