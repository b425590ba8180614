#!/usr/bin/env bash
# Prints a folder with `vmlinuz` and `initrd`: the rescue system's kernel, and what runs one program on it
# (test/support/guest/run.sh).
source "$(dirname "$0")/../../../tools/lib.sh"
# With their dependencies, as modprobe reports them.
modules=(veth wireguard sctp nf_tables sch_ingress cls_bpf dummy sch_fq)
system=$(test/support/rescue/root.sh)

build() {
  CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags="-s -w" -o build/go/guest-init ./test/support/guest/init
  folder="$PALISADE_CACHE/guest/boot-$(content_hash build/go/guest-init test/support/guest/boot.sh test/support/rescue/pack.sh <<<"$system")"
  [[ -d $folder ]] && return
  work=$(mktemp -d)
  trap 'rm -rf "$work"' EXIT
  kernel=$(basename "$system"/usr/lib/modules/*)
  rm -rf "$folder.new"
  mkdir -p "$work"/root/{dev,proc,sys,tmp,run,modules} "$folder.new"
  for module in "${modules[@]}"; do
    chroot "$system" modprobe --set-version "$kernel" --show-depends --ignore-install "$module"
  done | sed -n 's|^insmod \([^ ]*\).*|\1|p' | awk '!seen[$0]++' | while read -r file; do
    cp "$system$file" "$work/root/modules/"
    echo "/modules/${file##*/}" >>"$work/root/modules/list"
  done
  install -m 755 build/go/guest-init "$work/root/init"
  test/support/rescue/pack.sh "$work/root" >"$folder.new/initrd"
  cp "$system"/boot/vmlinuz-* "$folder.new/vmlinuz"
  mv "$folder.new" "$folder"
}
with_lock "$PALISADE_CACHE/guest/lock" build
echo "$folder"
