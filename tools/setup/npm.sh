#!/usr/bin/env bash
# The clone's npm packages, exactly as the lock file says. npm itself is the machine's; it runs on the node of PATH.
source "$(dirname "$0")/../lib.sh"

if node tools/setup/npm-installed.mjs; then
  echo "as locked" >&3
  exit 0
fi
npm ci --ignore-scripts --no-audit --no-fund
node tools/setup/npm-installed.mjs
echo "installed" >&3
