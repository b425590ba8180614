#!/usr/bin/env bash
# What patching images needs, as commands of this clone: the scanner Trivy, Copa, BuildKit's daemon, and the writer of
# vulnerability databases. Each is built once for its content; the first time takes minutes.
source "$(dirname "$0")/lib.sh"

# tool MODULE PROGRAM COMMAND: the module's PROGRAM becomes COMMAND.
tool() {
  link_tool "$3" "$(tools/go-tool.sh "$1")/$2"
  sed -n "s|^\s*github.com/$4 \(v[0-9.]*\).*|\1|p" "tools/$1/go.mod" >&3
}

steps() {
  step "Trivy" tool trivy trivy trivy aquasecurity/trivy
  step "Copa" tool copa copacetic copa project-copacetic/copacetic
  step "BuildKit" tool buildkit buildkitd buildkitd moby/buildkit
  step "vulnerability database writer" tool vulndb vulndb vulndb ""
}
echo "Building what patches images"
with_lock build/.patch-tools.lock steps
