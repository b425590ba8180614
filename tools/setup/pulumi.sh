#!/usr/bin/env bash
# The Pulumi command line and its language host: the machine's when it is the pinned version, else built from the
# pinned modules. Linked into build/bin, where the program and the tests find them.
source "$(dirname "$0")/../lib.sh"
wanted=$(sed -n 's/.*Version=\(v[0-9.]*\).*/\1/p' tools/pulumi/build.flags)

machine=$(PATH=$outer_path command -v pulumi || true)
if [[ -n $machine && -x $(dirname "$machine")/pulumi-language-nodejs ]] &&
  [[ $(PULUMI_SKIP_UPDATE_CHECK=true "$machine" version) == "$wanted" ]]; then
  rm -f build/bin/pulumi build/bin/pulumi-language-nodejs
  echo "$wanted of this machine" >&3
  exit 0
fi
link_tool pulumi "$(tools/go-tool.sh pulumi)/pulumi"
link_tool pulumi-language-nodejs "$(tools/go-tool.sh pulumi-language-nodejs)/pulumi-language-nodejs"
echo "$wanted" >&3
