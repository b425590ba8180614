#!/usr/bin/env bash
# What a fresh Debian 12 machine with Go and any Node.js lacks to build, run and test Palisade. Each tool is built once
# for its content, outside the clone; what is there already costs a second.
source "$(dirname "$0")/../lib.sh"

echo "Setting up"
# The only step that needs root is the first, so that a user without root learns of it at once.
tools/setup/packages.sh

command -v go >/dev/null || fail "Go is not on PATH; install the version of go.mod (go $(sed -n 's/^go //p' go.mod)) or newer."
mkdir -p "$PALISADE_CACHE"

steps() {
  step "Node.js" tools/setup/node.sh
  step "npm packages" tools/setup/npm.sh
  step "Pulumi" tools/setup/pulumi.sh
}
# Two runs in one clone take turns; other clones wait for shared builds only.
mkdir -p build
with_lock build/.setup.lock steps
