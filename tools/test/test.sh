#!/usr/bin/env bash
# Runs layers of tests in the order given and ends with one line: N passed, N failed. A layer that fails does not keep
# the next from running. LAYER is a project of vitest.config.mts or a function layer_LAYER of this script; LAYER+LAYER
# run side by side. With --whole, rows of the acceptance tables that were held and are not proved any more fail.
# PALISADE_FULL=1 runs at full length what is sampled otherwise.
# Usage: test.sh [--whole] LAYER...
source "$(dirname "$0")/../lib.sh"
whole=
if [[ ${1:-} == --whole ]]; then
  whole=1
  shift
fi
export reports=build/reports/tests
# .ci/run keeps the result of the checks there.
[[ -n ${PALISADE_KEEP_REPORTS:-} ]] || rm -rf "$reports"
mkdir -p "$reports"
# After a signal, the running layer ends first and is recorded.
trap 'exit 143' TERM INT HUP

# Set by make test-all.
export PALISADE_FULL=${PALISADE_FULL:-}
if [[ -n $PALISADE_FULL ]]; then export PALISADE_TUPLES=1000000 PALISADE_CASES=all; fi

layer_go() {
  local status=0
  watched go go test -json ./... || status=$?
  containerd_tests || status=$?
  return "$status"
}

# watched LAYER COMMAND...: adds the events of `go test -json` to the layer's report and prints a line for each package.
watched() {
  local layer=$1
  shift
  # The pipe's own exit code is that of the tests (pipefail).
  "$@" | tee -a "$reports/$layer.json" | sed -nuE \
    's/^\{"Time":"[^"]*","Action":"(pass|fail)","Package":"([^"]*)","Elapsed":([0-9.e+-]*)(,"FailedBuild":"[^"]*")?\}$/\1 \2 \3 s/p'
}

# With the host's own containerd and network plugins, the agent's tests run real containers. They use runc, which works
# with both versions of control groups; the host's crun is tested on the host.
export PALISADE_HOST_BINARIES="$root/build/host" PALISADE_OCI_RUNTIME=/usr/sbin/runc

# The tests of our containerd, and upstream's own tests of the packages around which it is built, in the same version.
# Upstream skips its tests of device mapper and fs-verity where the kernel has none; they are tested end to end on
# hosts.
containerd_tests() {
  local upstream=github.com/containerd/containerd/v2/plugins tools memory status=0
  if tools=$(tools/setup/erofs-tools.sh); then PATH="$tools:$PATH"; fi
  # They make and mount hundreds of file systems, which takes a sixth of the time in memory.
  memory=$(df --output=avail /dev/shm 2>/dev/null | tail -n 1)
  if ((${memory:-0} > 1024 * 1024)); then
    export GOTMPDIR="${TMPDIR:-/tmp}" TMPDIR
    TMPDIR=$(mktemp -d /dev/shm/palisade-test-XXXXXX)
    # shellcheck disable=SC2064 # The folder of now.
    trap "rm -rf '$TMPDIR'" EXIT
  fi
  # Upstream's flag for tests that mount.
  local as_root=()
  if ((UID == 0)); then as_root=(-args -test.root); fi
  export GOWORK=off
  watched go go test -C hosts/containerd -json ./... || status=$?
  watched go go test -C hosts/containerd -json "$upstream/snapshots/erofs" "$upstream/mount/erofs" "${as_root[@]}" || status=$?
  watched go go test -C hosts/containerd -json "$upstream/snapshots/erofs/plugin" || status=$?
  return "$status"
}

# Data races. The race detector needs a C compiler. It does not see the datapath, which runs in the kernel.
layer_go-race() {
  if ! command -v gcc >/dev/null; then
    echo "the race detector needs a C compiler: sudo apt-get install gcc libc6-dev"
    return 1
  fi
  CGO_ENABLED=1 watched go-race go test -race -json ./hosts/... ./test/...
}

# The datapath at full length. Each condition of its programs is left out in turn, and a test has to fail without it;
# that needs clang.
layer_go-datapath() {
  local mutate=
  if command -v clang-19 >/dev/null && command -v llvm-strip-19 >/dev/null; then mutate=1; fi
  PALISADE_MUTATE=$mutate PALISADE_FUZZ=1 PALISADE_STARTS=1000 \
    watched go-datapath go test -count=1 -timeout=60m -json ./bpf/... ./hosts/agent/internal/netd
}

layer_cyclonus() {
  pinned_tool cyclonus
}

layer_setup() {
  tools/setup/setup.sh
}

layer_host-binaries() {
  tools/build/host-binaries.sh
}

layer_build() {
  tools/build/build.sh
}

layer_patch-tools() {
  tools/build/patch-tools.sh
}

# Collects what Go tests observed and writes the tables. A row that does not hold has failed its test already.
layer_acceptance() {
  node dist/test/support/acceptance/collect-go.js "$reports"/go*.json
  node dist/test/support/acceptance/tables.js || true
  [[ -z $whole ]] || node dist/test/support/acceptance/held.js "$reports/acceptance.json"
}

# vitest LAYER [PROJECT [FILE...]]: a project of vitest.config.mts, by default that of the layer's name.
vitest() {
  local layer=$1 project=${2:-$1}
  node node_modules/vitest/vitest.mjs run --project "$project" --passWithNoTests "${@:3}" \
    --reporter=default --reporter=./tools/test/progress-reporter.mjs --reporter=json --outputFile.json="$reports/$layer.json"
}

# The network's tables at full length take more than an hour in an emulated guest, so each family has a slice of its
# own.
layer_conformance-ipv4() {
  PALISADE_FAMILY=4 vitest conformance-ipv4 conformance
}

layer_conformance-ipv6() {
  PALISADE_FAMILY=6 vitest conformance-ipv6 conformance test/layers/conformance/packets.test.ts
}

# This script starts itself for a layer, so that the layer is a process of its own, which can be watched and ended.
if [[ ${1:-} == --only ]]; then
  status=0
  if declare -F "layer_$2" >/dev/null; then "layer_$2" || status=$?; else vitest "$2" || status=$?; fi
  exit "$status"
fi

# run [--prefix] LAYER: keeps the result for the sum.
run() {
  local layer=${*: -1}
  printf '\n== %s\n' "$layer"
  node tools/test/run-layer.mjs "${@:1:$#-1}" --watch "$reports/$layer.json" "$reports" "$layer" -- env PALISADE_KEEP_REPORTS=1 "$0" ${whole:+--whole} --only "$layer"
}

# run_layers A or A+B: the second kind side by side.
run_layers() {
  local layer
  if [[ $1 != *+* ]]; then
    run "$1"
    return
  fi
  for layer in ${1//+/ }; do run --prefix "$layer" & done
  wait
}

succeeded() {
  grep -q '"exitCode":0' "$reports/$1.result"
}

[[ -n $PALISADE_FULL ]] || printf 'Sampled; make test-all runs everything at full length:\n%s\n' "$(<test/sampled.txt)"
run setup
if succeeded setup; then
  run host-binaries
  run build
  if [[ " $* " =~ " conformance" ]]; then run cyclonus; fi
  # The stack of the end-to-end tests patches its image as well.
  if [[ " ${*//+/ } " =~ " patch "|" consumer "|" e2e" ]]; then run patch-tools; fi
  for layers in "$@"; do run_layers "$layers"; done
  if succeeded build; then run acceptance; fi
fi
printf '\n'
node tools/test/test-summary.mjs "$reports"
