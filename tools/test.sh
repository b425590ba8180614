#!/usr/bin/env bash
# Runs layers of tests in the order given and ends with one line: N passed, N failed. A layer that fails does not keep
# the next from running. Usage: test.sh LAYER..., with LAYER go or a project of vitest.config.mts
source "$(dirname "$0")/lib.sh"
reports=build/reports/tests
rm -rf "$reports"
mkdir -p "$reports"

# run LAYER COMMAND...: keeps the exit code for the sum.
run() {
  local layer=$1 status started=$EPOCHREALTIME
  shift
  printf '\n== %s\n' "$layer"
  set +e
  "$@" </dev/null
  status=$?
  set -e
  printf '{"exitCode":%d,"seconds":%s}\n' "$status" "$(seconds_since "$started")" >"$reports/$layer.result"
  return 0
}

# With the host's own containerd and network plugins, the agent's tests run real containers. runc, as it works on
# machines with either version of control groups; the host's crun is tested on the host.
go_tests() {
  PALISADE_HOST_BINARIES="$root/build/host" PALISADE_OCI_RUNTIME=/usr/sbin/runc go test -json ./... >"$reports/go.json"
}

vitest() {
  node node_modules/vitest/vitest.mjs run --project "$1" --passWithNoTests \
    --reporter=default --reporter=json --outputFile.json="$reports/$1.json"
}

run setup tools/setup.sh
if grep -q '"exitCode":0' "$reports/setup.result"; then
  run host-binaries tools/host-binaries.sh
  run build tools/build.sh
  for layer in "$@"; do
    if [[ $layer == go ]]; then run go go_tests; else run "$layer" vitest "$layer"; fi
  done
  if grep -q '"exitCode":0' "$reports/build.result"; then
    # A row that does not hold has failed its test already.
    node dist/test/acceptance/tables.js || true
  fi
fi
printf '\n'
node tools/test-summary.mjs "$reports"
