#!/bin/bash
# Prints image.json: what the image is, for those who start it and compare it later.
#
#   describe.sh DISK ROOT-HASH MKOSI-DEFINITION DEFINITION KEYS MODE TOOLS
set -euo pipefail

disk=$1 root_hash=$2 mkosi=$3 definition=$4 keys=$5 mode=$6 tools=$7

# In plain text in the signed kernel image, which comes first on the disk.
kernel=$(grep -aom 1 -E '[0-9]+\.[0-9]+\.[0-9]+[0-9a-z.+~-]*-amd64' "$disk" | head -n 1 || true)
policy=$(head -n 1 "$("$definition/scripts/policy-of-mode.sh" "$definition" "${mode%%-*}")")
fingerprint() { openssl x509 -in "$1" -noout -fingerprint -sha256 | sed 's/.*=//; s/://g' | tr '[:upper:]' '[:lower:]'; }
quoted() { printf '"%s"' "$1"; }

cat <<EOF
{
  "digest": "sha256:$(sha256sum "$disk" | cut -d' ' -f1)",
  "rootHash": "$root_hash",
  "ipePolicy": {
    "name": $(quoted "$(sed -nE 's/.*policy_name=([^ ]+).*/\1/p' <<<"$policy")"),
    "version": $(quoted "$(sed -nE 's/.*policy_version=([^ ]+).*/\1/p' <<<"$policy")")
  },
  "mode": "$mode",
  "trustedCertificates": [
    $(quoted "$(fingerprint "$keys/secure-boot/db.crt")"),
    $(quoted "$(fingerprint "$keys/image/root-hash.crt")"),
    $(quoted "$(fingerprint "$keys/image/ipe-policy.crt")"),
    $(quoted "$(fingerprint "$keys/layers/layer.crt")")
  ],
  "kernelVersion": "$kernel",
  "builtFrom": {
    "suite": "trixie",
    "definition": "sha256:$("$definition/inputs.sh" | (cd "$definition" && xargs -d '\n' sha256sum) | sha256sum | cut -d' ' -f1)",
    "programs": "sha256:$(cd "$mkosi/mkosi.extra/usr" && find bin share/palisade -type f | LC_ALL=C sort | xargs sha256sum | sha256sum | cut -d' ' -f1)",
    "tools": "$(basename "$tools")",
    "sourceDateEpoch": $(<"$definition/source-date-epoch")
  }
}
EOF
