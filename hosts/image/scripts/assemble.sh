#!/bin/bash
# Lays out the definition that mkosi builds: ours, this machine's package sources, the prebuilt programs.
#
#   assemble.sh DEFINITION BINARIES KEYS LAYERS TOOLS OUTPUT [PROFILE]
set -euo pipefail

definition=$1 binaries=$2 keys=$3 layers=$4 tools=$5 output=$6 profile=${7:-}

cp -r "$definition/mkosi/." "$output"
sandbox=$output/mkosi.sandbox/etc/apt
mkdir -p "$sandbox"/{sources.list.d,apt.conf.d}
# This name overrides the sources that mkosi would write by itself, which name a suite that mirrors lack.
"$definition/scripts/apt-sources.sh" trixie >"$sandbox/sources.list.d/mkosi.sources"
"$definition/scripts/apt-options.sh" >"$sandbox/apt.conf.d/50-machine"

usr=$output/mkosi.extra/usr
install -D -m 755 -t "$usr/bin" "$binaries"/{palisade-agent,containerd,containerd-shim-runc-v2}
# The agent is the CNI plugin when it is called by that name.
mkdir -p "$usr/libexec/cni"
ln -s ../../bin/palisade-agent "$usr/libexec/cni/palisade-cni"
install -D -m 644 -t "$usr/share/palisade" "$binaries/pause.oci.tar"
# Sealed layers that come with the host, and what decides which seals are believed.
cp -r "$layers" "$usr/share/palisade/layers"
# Roles with users of their own read them, whatever the mode of the folder was that they were made in.
chmod -R u=rwX,go=rX "$usr/share/palisade/layers"
install -D -m 644 "$keys/layers/seal.crt" "$usr/share/palisade/trust/seals/seal.pem"
[[ ! -f $keys/layers/revoked.json ]] || install -m 644 -t "$usr/share/palisade/trust" "$keys/layers/revoked.json"
# The certificates of public authorities without the package that manages them, which brings OpenSSL and scripts.
install -D -m 644 "$tools/etc/ssl/certs/ca-certificates.crt" "$output/mkosi.extra/etc/ssl/certs/ca-certificates.crt"
extra=$output/mkosi.profiles/$profile/mkosi.extra/usr
# Only this profile has the socket that ctr needs.
if [[ $profile == probe ]]; then
    install -D -m 755 -t "$extra/bin" "$binaries/ctr"
    install -D -m 755 -t "$extra/libexec" "$binaries/palisade-probe"
fi
