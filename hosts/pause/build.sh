#!/bin/bash
# Builds the pause program and its OCI image archive. Reproducible; needs no network once the Go modules are there.
#
#   hosts/pause/build.sh OUTPUT     writes OUTPUT, e.g. build/host/pause.oci.tar
set -euo pipefail

output=$(realpath -m "${1:?usage: build.sh OUTPUT}")
cd "$(dirname "$0")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags '-s -w -buildid=' -o "$work/pause" ./hosts/pause
go run ./hosts/pause/archive -program "$work/pause" -output "$work/pause.oci.tar"
mkdir -p "$(dirname "$output")"
mv "$work/pause.oci.tar" "$output"
