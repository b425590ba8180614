#!/bin/bash
# Makes the initrd's own part: the init program. The kernel's modules are added by mkosi, what depends on the mode by
# boot-image.sh. Runs in the tools root.
#
#   initrd.sh PROGRAM OUTPUT
set -euo pipefail

program=$1 output=$2
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

mkdir -p "$work"/{dev,etc/palisade,proc,sys,sysroot,usr/lib}
install -m 755 "$program" "$work/init"
"$(dirname "$0")/cpio.sh" "$work" "$output"
