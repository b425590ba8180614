#!/bin/sh
# OpenSSH's server in the rescue root, in mount and process namespaces that the caller made for it (unshare --mount
# --pid --fork). Nothing is written into the root: what a test writes is in memory.
#
#   ssh-server.sh ROOT FOLDER       FOLDER: sshd_config, keys and shadow, seen as /run/test
set -eu
root=$1
mount --make-rprivate /
for memory in run root; do mount -t tmpfs -o mode=755 tmpfs "$root/$memory"; done
for memory in tmp var/tmp; do mount -t tmpfs tmpfs "$root/$memory"; done
mount -t proc proc "$root/proc"
mount --rbind /dev "$root/dev"
mount --rbind /sys "$root/sys"
mkdir -m 755 "$root/run/sshd" "$root/run/test"
cp "$2"/* "$root/run/test/"
chmod 600 "$root"/run/test/*
mount --bind "$root/run/test/shadow" "$root/etc/shadow"
exec chroot "$root" /usr/sbin/sshd -D -e -f /run/test/sshd_config
