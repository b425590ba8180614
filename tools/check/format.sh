#!/usr/bin/env bash
# Formats everything that a formatter knows, and repairs what the linter can repair by itself.
source "$(dirname "$0")/../lib.sh"

node node_modules/eslint/bin/eslint.js --fix . || true
node node_modules/prettier/bin/prettier.cjs --write --log-level warn .
git ls-files -co --exclude-standard -- '*.go' | xargs -r gofmt -w
if command -v clang-format-19 >/dev/null; then clang-format-19 -i bpf/src/*.[ch]; fi
