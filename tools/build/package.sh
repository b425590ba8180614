#!/usr/bin/env bash
# The npm package as consumers install it: components, plugin, host image definition and the host's prebuilt binaries
# (dist/host). Writes one .tgz to build/package and prints its path.
source "$(dirname "$0")/../lib.sh"

# The compiler keeps the outputs of sources that were moved or deleted, and npm would pack them.
remove_stale_outputs() {
  local file source
  while read -r file; do
    source=${file#dist/}
    source=${source%.map}
    source=${source%.js}
    source=${source%.mjs}
    source=${source%.d.ts}
    source=${source%.d.mts}
    [[ -f $source.ts || -f $source.mts ]] || rm "$file"
  done < <(find dist -path dist/host -prune -o -type f -regex '.*\.\(js\|mjs\|d\.ts\|d\.mts\)\(\.map\)?' -print)
}

pack() {
  rm -rf dist/host build/package
  mkdir -p dist build/package
  remove_stale_outputs
  cp -a build/host dist/host
  npm pack --silent --ignore-scripts --pack-destination build/package
}
with_lock build/.package.lock step "npm package" pack
echo "$root"/build/package/*.tgz
