#!/bin/bash
# Makes the firmware's variables with Secure Boot on and nothing but our own keys in them. Signers of root hashes,
# policies and layers are put into db too: the distribution's kernel looks them up in the platform keyring, which is db.
# Runs in the tools root.
#
#   firmware.sh KEYS OUTPUT
set -euo pipefail

keys=$1 output=$2
# Names our keys' entries; random once, fixed since.
owner=6c1a9a3e-8f5e-4d0b-9a55-2d6c1f0e7b43

virt-fw-vars --loglevel warning --input /usr/share/OVMF/OVMF_VARS_4M.fd --output "$output" \
    --set-pk "$owner" "$keys/secure-boot/pk.crt" \
    --add-kek "$owner" "$keys/secure-boot/kek.crt" \
    --add-db "$owner" "$keys/secure-boot/db.crt" \
    --add-db "$owner" "$keys/image/root-hash.crt" \
    --add-db "$owner" "$keys/image/ipe-policy.crt" \
    --add-db "$owner" "$keys/layers/layer.crt" \
    --secure-boot
