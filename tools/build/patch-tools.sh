#!/usr/bin/env bash
# What patching images needs, as commands of this clone: the scanner Trivy, Copa, BuildKit's daemon, and the writer of
# vulnerability databases. Each is built once for its content; the first time takes minutes. `palisade patch-tools` does
# the same for those who have the npm package.
source "$(dirname "$0")/../lib.sh"
tools=provider/local/patching/tools

# tool MODULE PROGRAM COMMAND: the module's PROGRAM becomes COMMAND.
tool() {
  link_tool "$3" "$("$tools/go-tool.sh" "$tools/$1")/$2"
  sed -nE "s,^\s*github.com/[^/]*/($1|$2) (v[0-9.]*).*,\2,p" "$tools/$1/go.mod" >&3
}

steps() {
  local module program command title
  while read -r module program command title <&4; do
    step "$title" tool "$module" "$program" "$command"
  done 4< <(grep -v '^#' "$tools/list.txt")
}
echo "Building what patches images"
with_lock build/.patch-tools.lock steps
