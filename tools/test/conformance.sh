#!/usr/bin/env bash
# The network's table at full length: policies against the oracles of others, a million tuples, a thousand starts, the
# datapath's tests, each condition of the programs left out once. Writes build/reports/conformance.json; fails when a
# test fails or a row does not hold. Rows that need a host are observed by make e2e and make attack.
source "$(dirname "$0")/../lib.sh"
mkdir -p build/reports/tests

tools/build/build.sh
step "Cyclonus" pinned_tool cyclonus
status=0
# Each condition of the programs is left out in turn where clang is installed (clang-19, llvm-19, libbpf-dev).
mutate=
if command -v clang-19 >/dev/null && command -v llvm-strip-19 >/dev/null; then mutate=1; fi
datapath() {
  PALISADE_MUTATE=$mutate PALISADE_FUZZ=1 PALISADE_STARTS=1000 go test -count=1 -timeout=60m -json ./bpf/... ./hosts/agent/internal/netd \
    >build/reports/tests/conformance-go.json
}
step "eBPF datapath and netd" datapath || status=$?
node dist/test/support/acceptance/collect-go.js build/reports/tests/conformance-go.json
PALISADE_TUPLES=1000000 PALISADE_CASES=all node node_modules/vitest/vitest.mjs run --project conformance </dev/null || status=$?
node dist/test/support/acceptance/tables.js conformance || status=1
exit "$status"
