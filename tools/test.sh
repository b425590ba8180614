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
  local status=0
  PALISADE_HOST_BINARIES="$root/build/host" PALISADE_OCI_RUNTIME=/usr/sbin/runc go test -json ./... >"$reports/go.json" ||
    status=$?
  containerd_tests >>"$reports/go.json" || status=$?
  return "$status"
}

# Our containerd's tests, and upstream's own of the packages around which it is built, in the version that is built. What
# needs a device mapper or fs-verity upstream skips by itself where there is none: TestErofsFsverity, TestDmverityEndToEnd,
# TestCacheDmverity and one case of TestDmverityModeValidation; on hosts the real thing is tested end to end.
containerd_tests() (
  upstream=github.com/containerd/containerd/v2/plugins
  status=0
  if tools=$(tools/erofs-tools.sh); then PATH="$tools:$PATH"; fi
  # They make and mount hundreds of file systems: in memory in a sixth of the time.
  memory=$(df --output=avail /dev/shm 2>/dev/null | tail -n 1)
  if ((${memory:-0} > 1024 * 1024)); then
    export GOTMPDIR="${TMPDIR:-/tmp}" TMPDIR
    TMPDIR=$(mktemp -d /dev/shm/palisade-test-XXXXXX)
    trap 'rm -rf "$TMPDIR"' EXIT
  fi
  # This flag is upstream's, for tests that mount.
  as_root=()
  if ((UID == 0)); then as_root=(-args -test.root); fi
  cd hosts/containerd
  export GOWORK=off
  go test -json ./... || status=$?
  go test -json "$upstream/snapshots/erofs" "$upstream/mount/erofs" "${as_root[@]}" || status=$?
  go test -json "$upstream/snapshots/erofs/plugin" || status=$?
  return "$status"
)

vitest() {
  node node_modules/vitest/vitest.mjs run --project "$1" --passWithNoTests \
    --reporter=default --reporter=json --outputFile.json="$reports/$1.json"
}

run setup tools/setup.sh
if grep -q '"exitCode":0' "$reports/setup.result"; then
  run host-binaries tools/host-binaries.sh
  run build tools/build.sh
  if [[ " $* " == *" conformance "* ]]; then run cyclonus tools/go-tool.sh cyclonus; fi
  # The stack of the end-to-end tests patches its image as well.
  if [[ " $* " =~ " patch " || " $* " =~ " e2e " ]]; then run patch-tools tools/patch-tools.sh; fi
  for layer in "$@"; do
    if [[ $layer == go ]]; then run go go_tests; else run "$layer" vitest "$layer"; fi
  done
  if grep -q '"exitCode":0' "$reports/build.result"; then
    node dist/test/acceptance/collect-go.js "$reports/go.json"
    # A row that does not hold has failed its test already.
    node dist/test/acceptance/tables.js || true
  fi
fi
printf '\n'
node tools/test-summary.mjs "$reports"
