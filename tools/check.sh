#!/usr/bin/env bash
# Every check that needs no machine: formatters, linters, types, contracts, generated code. All of them run; the result
# says which failed.
source "$(dirname "$0")/lib.sh"

failed=()
# check TITLE COMMAND...: like step, but the next check runs in any case.
check() {
  local status
  # Not `step || ...`: inside a condition the checks would lose their `set -e`.
  set +e
  (set -e; step "$@")
  status=$?
  set -e
  ((status == 0)) || failed+=("$1")
}

prettier_check() {
  node node_modules/prettier/bin/prettier.cjs --check --log-level warn .
}

eslint_check() {
  node --max-old-space-size=4096 node_modules/eslint/bin/eslint.js --max-warnings 0 .
}

types_check() {
  node node_modules/typescript/bin/tsc --project tsconfig.json --noEmit
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
  if ! command -v clang-format-19 >/dev/null; then
    echo "skipped: clang-format-19 is not installed (sudo apt-get install clang-format-19)" >&3
    return
  fi
  clang-format-19 --dry-run --Werror bpf/src/*.[ch]
}

# The modules whose code is ours; the others of tools/ only pin programs.
go_lint() {
  local machine linter wanted module
  wanted=$(sed -n 's/.*golangci-lint\/v2 v\([0-9.]*\).*/\1/p' tools/golangci-lint/go.mod)
  machine=$(PATH=$outer_path command -v golangci-lint || true)
  if [[ -n $machine && $("$machine" version --short 2>/dev/null) == "$wanted" ]]; then
    linter=$machine
  else
    linter=$(tools/go-tool.sh golangci-lint)/golangci-lint
  fi
  local status=0
  for module in . hosts/containerd tools/cyclonus tools/sdkgen tools/vulndb; do
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
  if ! command -v shellcheck >/dev/null; then
    echo "skipped: shellcheck is not installed (sudo apt-get install shellcheck)" >&3
    return
  fi
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

echo "Checking"
check "prettier" prettier_check
check "eslint" eslint_check
check "TypeScript types" types_check
check "gofmt" gofmt_check
check "clang-format" clang_format_check
check "go vet and golangci-lint" go_lint
check "go.mod files" go_modules
check "shellcheck" shell_check
check "buf lint" protobuf_lint
check "buf breaking" protobuf_breaking
check "generated code" tools/generate.sh --check

if ((${#failed[@]} > 0)); then
  fail "failed: $(printf '%s; ' "${failed[@]}")" "make format repairs formatting, make generate the generated code"
fi
