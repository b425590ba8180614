#!/usr/bin/env bash
# Attacks two hosts made for that, one as delivered and one without its other layers of protection, and writes
# build/reports/attack.json with what was observed. Fails when an attack's test fails or a row does not hold.
source "$(dirname "$0")/../lib.sh"

tools/build/host-binaries.sh
tools/build/build.sh
status=0
node node_modules/vitest/vitest.mjs run --project e2e test/layers/attack/probe-hosts.test.ts </dev/null || status=$?
node dist/test/support/acceptance/tables.js attack || status=1
exit "$status"
