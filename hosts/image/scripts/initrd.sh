#!/bin/bash
# Makes the initrd's own part: the init program, the signed integrity policy, the command line that was signed. The
# kernel's modules are added by mkosi. Runs in the tools root.
#
#   initrd.sh PROGRAM COMMAND-LINE-FILE POLICY CERTIFICATE KEY OUTPUT
set -euo pipefail

program=$1 command_line=$2 policy=$3 certificate=$4 key=$5 output=$6
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir -p "$work"/{dev,etc/palisade,proc,sys,sysroot,usr/lib}
install -m 755 "$program" "$work/init"
install -m 644 "$command_line" "$work/etc/palisade/command-line"
# The kernel wants PKCS#7 without attributes, the content inside.
openssl smime -sign -binary -noattr -nodetach -nosmimecap -md sha256 -outform der -signer "$certificate" -inkey "$key" \
    -in "$policy" -out "$work/etc/palisade/ipe-policy.p7b"
find "$work" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
(cd "$work" && find . -mindepth 1 -print0 | LC_ALL=C sort -z | cpio --null --create --format=newc --reproducible --owner=0:0 --quiet) |
    zstd -q -10 >"$output"
