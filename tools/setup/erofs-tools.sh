#!/usr/bin/env bash
# Prints a folder with mkfs.erofs and veritysetup as commands, in the versions that layers are sealed with: those of the
# Debian root that host images are built with. It is made once, and its programs are run in place by its own loader, as
# provider/local/sealing/tools.ts does.
source "$(dirname "$0")/../lib.sh"
debian=$(hosts/image/scripts/tools-root.sh trixie "$PALISADE_CACHE/image")
folder="$root/build/erofs-tools"

case $(uname -m) in
  x86_64) loader=lib64/ld-linux-x86-64.so.2 libraries=usr/lib/x86_64-linux-gnu ;;
  aarch64) loader=lib/ld-linux-aarch64.so.1 libraries=usr/lib/aarch64-linux-gnu ;;
  *) fail "uname -m: $(uname -m) is neither x86_64 nor aarch64" ;;
esac

# command_of PROGRAM: a program of the root as a command of the folder.
command_of() {
  local file="$folder/${1##*/}"
  printf '#!/bin/sh\nexec "%s" --library-path "%s" "%s" "$@"\n' \
    "$debian/$loader" "$debian/$libraries:$debian/usr/lib" "$debian/$1" >"$file.$$"
  chmod 0755 "$file.$$"
  mv "$file.$$" "$file"
}
mkdir -p "$folder"
command_of usr/bin/mkfs.erofs
command_of usr/sbin/veritysetup
echo "$folder"
