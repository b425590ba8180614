#!/usr/bin/env bash
# Measures `make up` in a fresh clone of the current commit, with directories of its own: nothing cached (compiler and
# npm caches included), only the stack gone, and again. Prints the table, also as build/reports/bench.json.
# Debian packages that are installed stay installed. BENCH_CACHED=1 starts from this user's caches instead.
source "$(dirname "$0")/../lib.sh"

work=$(mktemp -d "${TMPDIR:-/tmp}/palisade-bench-XXXXXX")
clone="$work/clone"
report="$root/build/reports/bench.json"
mkdir -p "$(dirname "$report")"

cleanup() {
  if [[ -d $clone ]] && ! make -C "$clone" --no-print-directory down >"$work/cleanup.log" 2>&1; then
    echo "palisade: make down failed; see $work/cleanup.log, then remove $work" >&2
    return
  fi
  # Go's module cache is read-only.
  chmod -R u+w "$work"
  rm -rf "$work"
}
trap cleanup EXIT

git clone --quiet "$root" "$clone"
export PALISADE_HOME="$work/home" PALISADE_STATE="$work/state" STACK=bench
if [[ -z ${BENCH_CACHED:-} ]]; then
  export PALISADE_CACHE="$work/cache" GOMODCACHE="$work/gomod" GOCACHE="$work/gobuild" npm_config_cache="$work/npm"
fi
# The clone finds its own tools, not this one's.
export PATH=$outer_path

rows=()
# measure TITLE LIMIT-SECONDS: one `make up`.
measure() {
  local title=$1 limit=$2 started=$EPOCHREALTIME seconds log
  log="$work/${title//[^a-z]/-}.log"
  printf '\n== %s\n' "$title"
  make -C "$clone" --no-print-directory up </dev/null 2>&1 | tee "$log"
  seconds=$(seconds_since "$started")
  rows+=("$title|$seconds|$limit|$(grep -E '^ +(\+|~|-|\+-)? ?[0-9]+ (created|updated|deleted|replaced|unchanged)' "$log" | tr -s ' ' | paste -sd, -)")
}
measure "$([[ -z ${BENCH_CACHED:-} ]] && echo "nothing cached" || echo "caches of this user")" 1800
make -C "$clone" --no-print-directory down
measure "only the stack gone" 180
measure "again" 30

printf '\n| make up | seconds | limit | resources |\n|---|---:|---:|---|\n'
printf '%s\n' "${rows[@]}" | while IFS='|' read -r title seconds limit resources; do
  printf '| %s | %s | %s |%s |\n' "$title" "$seconds" "$limit" "$resources"
done
printf '%s\n' "${rows[@]}" | node -e '
  const rows = require("fs").readFileSync(0, "utf8").trim().split("\n").map((line) => {
    const [title, seconds, limit, resources] = line.split("|");
    return { title, seconds: Number(seconds), limit: Number(limit), pass: Number(seconds) <= Number(limit), resources: resources.trim() };
  });
  require("fs").writeFileSync(process.argv[1], JSON.stringify(rows, undefined, 2) + "\n");
  process.exitCode = rows.every(({ pass }) => pass) ? 0 : 1;
' "$report"
