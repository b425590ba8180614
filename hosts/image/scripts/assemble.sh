#!/bin/bash
# Lays out the definition that mkosi builds: ours, this machine's package sources, the prebuilt programs.
#
#   assemble.sh DEFINITION BINARIES TOOLS OUTPUT
set -euo pipefail

definition=$1 binaries=$2 tools=$3 output=$4

cp -r "$definition/mkosi/." "$output"
sandbox=$output/mkosi.sandbox/etc/apt
mkdir -p "$sandbox"/{sources.list.d,apt.conf.d}
# This name overrides the sources that mkosi would write by itself, which name a suite that mirrors lack.
"$definition/scripts/apt-sources.sh" trixie >"$sandbox/sources.list.d/mkosi.sources"
"$definition/scripts/apt-options.sh" >"$sandbox/apt.conf.d/50-machine"

usr=$output/mkosi.extra/usr
install -D -m 755 -t "$usr/bin" "$binaries"/{palisade-agent,containerd,containerd-shim-runc-v2}
install -D -m 755 -t "$usr/libexec/cni" "$binaries"/cni/*
install -D -m 644 -t "$usr/share/palisade" "$binaries/pause.oci.tar"
# The certificates of public authorities without the package that manages them, which brings OpenSSL and scripts.
install -D -m 644 "$tools/etc/ssl/certs/ca-certificates.crt" "$output/mkosi.extra/etc/ssl/certs/ca-certificates.crt"
if [[ -d $output/mkosi.profiles/debug ]]; then
    install -D -m 755 -t "$output/mkosi.profiles/debug/mkosi.extra/usr/bin" "$binaries/ctr"
fi
