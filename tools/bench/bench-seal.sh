#!/usr/bin/env bash
# See bench-seal.mjs.
source "$(dirname "$0")/../lib.sh"
exec node tools/bench/bench-seal.mjs
