#!/usr/bin/env bash
# Every check that needs no machine: formatters, linters, types, contracts, generated code. All of them run, two at a
# time; the result says which failed. Files that have passed with the same content are not formatted or linted again.
# PALISADE_CHECKS names a file that gets a line for each check: passed or failed, and its title.
source "$(dirname "$0")/../lib.sh"

results=$(mktemp -d)
trap 'rm -rf "$results"' EXIT

# check TITLE COMMAND...: like step, but its line is printed as a whole, and what comes next runs in any case.
check() {
  local status=0 name=${1//[^a-zA-Z0-9]/-} result=passed
  # Not `step || ...`: inside a condition the checks would lose their `set -e`.
  set +e
  (set -e; step "$@") >"$results/$name.out" 2>&1
  status=$?
  set -e
  cat "$results/$name.out"
  ((status == 0)) || result=failed
  printf '%s %s\n' "$result" "$1" >"$results/$name.result"
}

# background COMMAND...: starts COMMAND as soon as fewer than two others run.
background() {
  while (($(jobs -rp | wc -l) >= 2)); do wait -n || true; done
  "$@" &
}

prettier_check() {
  git ls-files -co --exclude-standard |
    node tools/check/unchecked.mjs --name prettier --key package-lock.json --key .prettierrc --key .prettierignore --key .editorconfig \
      -- node node_modules/prettier/bin/prettier.cjs --check --ignore-unknown --log-level warn
}

# Whether a file passes also depends on the types that other files export, so the key includes all declarations.
eslint_check() {
  git ls-files -co --exclude-standard -- '*.ts' '*.mjs' '*.cjs' '*.js' |
    node tools/check/unchecked.mjs --name eslint --key package-lock.json --key eslint.config.mjs --key tools/check/eslint-one-way.mjs \
      --key tools/check/eslint-words.mjs --key tsconfig.json --key dist \
      -- node --max-old-space-size=4096 node_modules/eslint/bin/eslint.js --max-warnings 0 --no-warn-ignored
}

# Compiles, and so saves the tests that follow from compiling again.
types_check() {
  node node_modules/typescript/bin/tsc --project tsconfig.json
}

typescript_checks() {
  with_lock build/.dist.lock check "TypeScript types" types_check
  check "eslint" eslint_check
}

comment_width() {
  git ls-files -co --exclude-standard | while read -r file; do
    if [[ -f $file && ! -L $file ]]; then printf '%s\0' "$file"; fi
  done | xargs -0r node tools/check/comment-width.mjs
}

gofmt_check() {
  local files
  files=$(git ls-files -co --exclude-standard -- '*.go' | xargs -r gofmt -l)
  [[ -z $files ]] || {
    printf 'not formatted:\n%s\n' "$files"
    return 1
  }
}

clang_format_check() {
  clang-format-19 --dry-run --Werror bpf/src/*.[ch]
}

# The modules with code of this repository; the others only pin programs.
go_lint() {
  local machine linter wanted module
  wanted=$(sed -n 's/.*golangci-lint\/v2 v\([0-9.]*\).*/\1/p' tools/pins/golangci-lint/go.mod)
  machine=$(PATH=$outer_path command -v golangci-lint || true)
  if [[ -n $machine && $("$machine" version --short 2>/dev/null) == "$wanted" ]]; then
    linter=$machine
  else
    linter=$(pinned_tool golangci-lint)/golangci-lint
  fi
  local status=0
  for module in . hosts/containerd tools/pins/cyclonus tools/build/sdkgen provider/local/patching/tools/vulndb; do
    (cd "$module" && GOWORK=off go vet ./... && GOWORK=off "$linter" run --concurrency 2 ./...) || status=$?
  done
  return "$status"
}

go_modules() {
  local file untidy=()
  while read -r file; do
    (cd "$(dirname "$file")" && GOWORK=off go mod tidy -diff) || untidy+=("$file")
  done < <(git ls-files -co --exclude-standard -- '*go.mod')
  ((${#untidy[@]} == 0)) || fail "not tidy: ${untidy[*]}" "run go mod tidy beside each"
}

shell_check() {
  git ls-files -co --exclude-standard -- tools .ci hosts bin test | while read -r file; do
    if [[ -f $file ]] && head -n 1 "$file" | grep -qE '^#!/(usr/)?bin/(env )?(ba)?sh$|^# shellcheck shell=bash$'; then echo "$file"; fi
  done | xargs -r shellcheck --severity=warning --external-sources --source-path=SCRIPTDIR
}

protobuf_lint() {
  node_modules/.bin/buf lint
}

# Against the last release where there is one, otherwise against what the branch started from.
protobuf_breaking() {
  local base
  base=$(git describe --tags --abbrev=0 --match 'v*' 2>/dev/null || git merge-base HEAD origin/main 2>/dev/null || true)
  if [[ -z $base || -z $(git ls-tree "$base" -- hosts/api) ]]; then
    echo "skipped: no release and no origin/main to compare with" >&3
    return
  fi
  node_modules/.bin/buf breaking --against ".git#ref=$(git rev-parse "$base^{commit}")"
  echo "against ${base:0:12}" >&3
}

tools/setup/packages.sh check
echo "Checking"
# The longest ones first.
background typescript_checks
background check "go vet and golangci-lint" go_lint
background check "generated code" tools/build/generate.sh --check
background check "prettier" prettier_check
background check "go.mod files" go_modules
background check "width of comments" comment_width
background check "shellcheck" shell_check
background check "gofmt" gofmt_check
background check "clang-format" clang_format_check
background check "buf lint" protobuf_lint
background check "buf breaking" protobuf_breaking
wait

[[ -z ${PALISADE_CHECKS:-} ]] || cat "$results"/*.result >"$PALISADE_CHECKS"
mapfile -t failed < <(sed -n 's/^failed //p' "$results"/*.result)
# Eleven checks, and the compiler before one of them.
count=$(cat "$results"/*.result | wc -l)
((count == 12)) || fail "only $count of 12 checks ended"
if ((${#failed[@]} > 0)); then
  fail "failed: $(printf '%s; ' "${failed[@]}")" "make format repairs formatting, make generate the generated code"
fi
