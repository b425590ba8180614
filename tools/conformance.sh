#!/usr/bin/env bash
# Compares network policies with the oracles of others and writes build/reports/conformance.json. Fails when a test fails or a
# row does not hold.
source "$(dirname "$0")/lib.sh"

tools/build.sh
step "Cyclonus" tools/go-tool.sh cyclonus
status=0
node node_modules/vitest/vitest.mjs run --project conformance </dev/null || status=$?
node dist/test/acceptance/tables.js conformance || status=1
exit "$status"
