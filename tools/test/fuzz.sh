#!/usr/bin/env bash
# Runs at full length what make test samples: a million verdicts of random policies and millions of damaged frames.
# PALISADE_SEED repeats a run.
source "$(dirname "$0")/../lib.sh"
mkdir -p build/reports/tests
status=0
PALISADE_FUZZ=1 go test -count=1 -timeout=30m -json -run '^(TestVerdictsEqualTheOracle|TestParserEqualsAnotherReader)$' ./bpf/datapath \
  >build/reports/tests/fuzz.json || status=$?
node dist/test/support/acceptance/collect-go.js build/reports/tests/fuzz.json
node dist/test/support/acceptance/tables.js conformance
exit "$status"
