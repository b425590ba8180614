#!/usr/bin/env bash
# The npm package as consumers install it: components, plugin, host image definition and the host's prebuilt binaries
# (dist/host). Leaves one .tgz in build/package and prints its path.
source "$(dirname "$0")/../lib.sh"

pack() {
  rm -rf dist/host build/package
  mkdir -p dist build/package
  cp -a build/host dist/host
  npm pack --silent --ignore-scripts --pack-destination build/package
}
with_lock build/.package.lock step "npm package" pack
echo "$root"/build/package/*.tgz
