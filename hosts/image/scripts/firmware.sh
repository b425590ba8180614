#!/bin/bash
# Makes the firmware's variables with Secure Boot on and nothing but our own keys in them, as ../firmware-certificates
# lists them. Signers of root hashes, policies and layers are put into db too: the distribution's kernel looks them up
# in the platform keyring, which is db. Runs in the tools root.
#
#   firmware.sh KEYS OUTPUT
set -euo pipefail

keys=$1 output=$2
# Names our keys' entries; random once, fixed since.
owner=6c1a9a3e-8f5e-4d0b-9a55-2d6c1f0e7b43

certificates=()
while read -r variable name; do
    case $variable in
    PK) certificates+=(--set-pk) ;;
    KEK) certificates+=(--add-kek) ;;
    db) certificates+=(--add-db) ;;
    *) echo "firmware.sh: no variable $variable has certificates" >&2 && exit 1 ;;
    esac
    certificates+=("$owner" "$keys/$name.crt")
done <"$(dirname "$0")/../firmware-certificates"

virt-fw-vars --loglevel warning --input /usr/share/OVMF/OVMF_VARS_4M.fd --output "$output" "${certificates[@]}" --secure-boot
