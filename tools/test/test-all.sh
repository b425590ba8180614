#!/usr/bin/env bash
# All tests at full length, in the slices of test/slices.txt, each with a time limit of an hour.
# Usage: test-all.sh [SLICE]
source "$(dirname "$0")/../lib.sh"
export PALISADE_FULL=1
minutes=60
reports=build/reports/tests

mapfile -t slices < <(grep -E '^[0-9]+ *\|' test/slices.txt)
[[ -z ${1:-} ]] || printf '%s\n' "${slices[@]}" | grep -qE "^$1 *\|" || fail "there is no slice '$1'; test/slices.txt lists them"

status=0
for line in "${slices[@]}"; do
  IFS='|' read -r slice layers <<<"$line"
  slice=${slice// /}
  [[ -z ${1:-} || $1 == "$slice" ]] || continue
  printf '\n==== slice %s:%s\n' "$slice" "$layers"
  result=0
  # shellcheck disable=SC2086 # A list of words.
  timeout --signal=TERM --kill-after=90 "${minutes}m" tools/test/test.sh $layers || result=$?
  if ((result == 124 || result == 137)); then
    node tools/test/test-summary.mjs "$reports" "slice $slice: not finished after $minutes minutes" || true
  fi
  ((result == 0)) || status=$result
done
exit "$status"
