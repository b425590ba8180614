#!/usr/bin/env bash
# Prints a folder with `vmlinuz` and `initrd`: the rescue system as it is started over the network, all of it in memory.
source "$(dirname "$0")/../../../tools/lib.sh"
system=$(test/support/rescue/root.sh)
folder="$PALISADE_CACHE/rescue/boot-$(content_hash test/support/rescue/init test/support/rescue/initrd.sh <<<"$system")"
# With their dependencies, as modprobe reports them.
modules=(virtio_blk virtio_net virtio_rng virtio_pci efivarfs ext4)

build() {
  [[ -d $folder ]] && return
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  kernel=$(basename "$system"/usr/lib/modules/*)
  rm -rf "$folder.new"
  mkdir -p "$work/root" "$folder.new"
  (cd "$system" && tar -c --exclude=./boot/'*' --exclude=./usr/share/'*' --exclude=./var/'*' --exclude=./usr/lib/modules/'*' \
    --exclude=./usr/lib/x86_64-linux-gnu/perl'*' --exclude=./dev/'*' .) | tar -x -C "$work/root"
  mkdir -p "$work/root/usr/lib/modules/$kernel" "$work"/root/{var/tmp,test}
  cp "$system/usr/lib/modules/$kernel"/modules.* "$work/root/usr/lib/modules/$kernel/"
  for module in "${modules[@]}"; do
    chroot "$system" modprobe --set-version "$kernel" --show-depends --ignore-install "$module"
  done | sed -n 's|^insmod /*lib|usr/lib|p; s|^insmod /*usr|usr|p' | sed 's/ *$//' | sort -u |
    (cd "$system" && tar -c --files-from=-) | tar -x -C "$work/root"
  install -m 755 test/support/rescue/init "$work/root/init"
  hosts/image/scripts/in-root.sh "$(hosts/image/scripts/tools-root.sh trixie "$PALISADE_CACHE/image")" "$work/root:/content:ro" -- \
    bash -c 'cd /content && find . -mindepth 1 | cpio --quiet --create --format=newc --owner=0:0' | gzip -1 >"$folder.new/initrd"
  cp "$system"/boot/vmlinuz-* "$folder.new/vmlinuz"
  mv "$folder.new" "$folder"
}
with_lock "$folder.lock" build
echo "$folder"
