#!/usr/bin/env bash
# The ladder from loopback to our datapath and the scaling of rules, in one run; needs root, iptables and nft. The
# report is build/reports/datapath.json; where matplotlib is, docs/datapath-*.png are drawn from it.
# Usage: bench-datapath.sh [-repetitions N] [-rules N]
source "$(dirname "$0")/../lib.sh"
PATH="$PATH:/usr/sbin"
mkdir -p build/reports build/go
go build -o build/go/datapath-bench ./bpf/cmd/datapath-bench
read -r load _ </proc/loadavg
if awk -v load="$load" 'BEGIN { exit !(load > 1) }'; then
  echo "palisade: the load of this machine is $load; figures of a busy machine have wide intervals" >&2
fi
build/go/datapath-bench "$@" >build/reports/datapath.json.new
mv build/reports/datapath.json.new build/reports/datapath.json
if /usr/bin/python3 -c 'import matplotlib' 2>/dev/null; then
  /usr/bin/python3 tools/bench/bench-datapath.py build/reports/datapath.json docs
else
  echo "palisade: no drawings: python3-matplotlib is not installed"
fi
