#!/usr/bin/env bash
# The Pulumi command line and its language host: the machine's when it is the pinned version, else built from the
# pinned modules. Linked into build/bin, where the program and the tests find them.
source "$(dirname "$0")/../lib.sh"
wanted=$(sed -n 's/.*Version=\(v[0-9.]*\).*/\1/p' tools/pins/pulumi/build.flags)

machine=$(PATH=$outer_path command -v pulumi || true)
if [[ -n $machine && -x $(dirname "$machine")/pulumi-language-nodejs ]] &&
  [[ $(PULUMI_SKIP_UPDATE_CHECK=true "$machine" version) == "$wanted" ]]; then
  rm -f build/bin/pulumi build/bin/pulumi-language-nodejs
  echo "$wanted of this machine" >&3
  exit 0
fi
# Pulumi wants its language host beside itself and warns about one that it finds on PATH, so both get one folder.
cli=$(pinned_tool pulumi)
language_host=$(pinned_tool pulumi-language-nodejs)
bundle="$PALISADE_CACHE/tools/pulumi-bundle/${cli##*/}-${language_host##*/}"
assemble() {
  [[ -d $bundle ]] && return
  rm -rf "$bundle.new"
  mkdir -p "$bundle.new"
  ln "$cli/pulumi" "$language_host/pulumi-language-nodejs" "$bundle.new"
  mv -T "$bundle.new" "$bundle"
}
[[ -d $bundle ]] || with_lock "$bundle.lock" assemble
link_tool pulumi "$bundle/pulumi"
link_tool pulumi-language-nodejs "$bundle/pulumi-language-nodejs"
echo "$wanted" >&3
