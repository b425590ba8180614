#!/usr/bin/env bash
# Prints the folder of a rescue system: Debian's ordinary packages with an SSH server, and a kernel for machines that
# boot it. Made once, named by the hash of what it is made of. Tests install hosts from it, in a virtual machine or in
# namespaces of their own.
source "$(dirname "$0")/../../../tools/lib.sh"

sources=$(hosts/image/scripts/apt-sources.sh trixie)
key=$(content_hash test/support/rescue/packages test/support/rescue/root.sh <<<"$sources")
folder="$PALISADE_CACHE/rescue/root-$key"

build() {
  [[ -d $folder ]] && return
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  rm -rf "$folder.new"
  hosts/image/scripts/apt-options.sh >"$work/apt.conf"
  printf '%s\n' "$sources" >"$work/debian.sources"
  # The kernel is started with an initrd made of this root, so none is made here.
  mmdebstrap --variant=minbase --include="$(paste -sd, test/support/rescue/packages)" --aptopt="$work/apt.conf" \
    --dpkgopt='path-exclude=/usr/share/{doc,man,locale}/*' --dpkgopt=force-confold \
    --essential-hook='mkdir -p "$1/etc/initramfs-tools"; echo update_initramfs=no >"$1/etc/initramfs-tools/update-initramfs.conf"' \
    --customize-hook='rm -rf "$1"/boot/initrd* "$1"/etc/ssh/ssh_host_* "$1"/var/lib/apt/lists/*' \
    --format=directory trixie "$folder.new" "$work/debian.sources" >"$folder.log" 2>&1 ||
    { tail -n 20 "$folder.log" >&2; fail "the rescue system could not be made; the whole log: $folder.log"; }
  mv "$folder.new" "$folder"
}
with_lock "$PALISADE_CACHE/rescue/root-$key.lock" build
echo "$folder"
