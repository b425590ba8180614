#!/usr/bin/env bash
# Components, plugin and stacks, from TypeScript to dist/.
source "$(dirname "$0")/../lib.sh"

compile() {
  node node_modules/typescript/bin/tsc --project tsconfig.json
}
echo "Building components and stacks"
with_lock build/.dist.lock step "TypeScript" compile
