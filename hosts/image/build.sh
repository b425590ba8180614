#!/bin/bash
# Builds the host image. Needs root: mmdebstrap and mkosi make file systems with other owners than the caller.
#
#   build.sh --binaries DIR --keys DIR --layers DIR --output DIR --cache DIR [--mode enforce] [--profile debug]
#
#   --binaries  what `make host-binaries` leaves: palisade-agent, palisade-initrd, containerd, containerd-shim-runc-v2,
#               ctr, pause.oci.tar
#   --keys      what `palisade keys init` leaves; used: secure-boot/{pk,kek,db}, image/{root-hash,ipe-policy}, and the
#               certificates layers/{layer,seal}; layers/revoked.json, if it is there, lists what is revoked
#   --layers    store of sealed layers (hosts/seal) with the pause image
#   --output    gets disk.raw, OVMF_VARS.fd and image.json; each is replaced at once or not at all
#   --cache     tools, packages and the installed base, reused by later builds; shared by all clones
#   --mode      what the integrity policy does, part of the signed kernel image that is booted: audit reports, enforce
#               denies, jit denies all but execution, for programs that make code at run time. The kernel images of the
#               other modes lie beside it, for the same root file system. debug, with a profile only, is enforce without
#               what the initrd gives up, so that tests can see each layer of protection alone
#   --profile   debug: a root shell on the second serial port, for work on the image itself; never for a host in use
#               probe: the witness of the end-to-end tests; --binaries has palisade-probe then
#
# Progress goes to standard output, one line per step.
set -euo pipefail

here=$(dirname "$(realpath "$0")")
suite=trixie
mode=enforce
profile=
unset binaries keys layers output cache

fail() {
    echo "build.sh: $*" >&2
    exit 1
}

while (($#)); do
    case $1 in
    --binaries | --keys | --layers | --output | --cache | --mode | --profile)
        (($# > 1)) || fail "$1 needs a value"
        declare "${1#--}=$2"
        shift 2
        ;;
    *) fail "unknown argument $1; see the head of $0" ;;
    esac
done
for argument in binaries keys layers output cache; do
    [[ -n ${!argument:-} ]] || fail "--$argument is missing; see the head of $0"
done
[[ $profile =~ ^(|debug|probe)$ ]] || fail "--profile $profile is not known; known: debug, probe"
modes=(audit enforce jit ${profile:+debug})
[[ " ${modes[*]} " == *" $mode "* ]] || fail "--mode $mode is not known; known: ${modes[*]}"
((EUID == 0)) || fail "has to run as root: it makes file systems whose files belong to other users"
for file in palisade-agent palisade-initrd containerd containerd-shim-runc-v2 ctr pause.oci.tar; do
    [[ -f $binaries/$file ]] || fail "--binaries $binaries lacks $file; make host-binaries makes it"
done
[[ $profile != probe || -f $binaries/palisade-probe ]] || fail "--binaries $binaries lacks palisade-probe, which --profile probe needs"
for role in secure-boot/pk secure-boot/kek secure-boot/db image/root-hash image/ipe-policy layers/layer layers/seal; do
    [[ -f $keys/$role.crt ]] || fail "--keys $keys lacks $role.crt; palisade keys init makes it"
done
compgen -G "$layers/seals/*.json" >/dev/null || fail "--layers $layers is no store of sealed layers"
mkdir -p "$output" "$cache/image"
binaries=$(realpath "$binaries") keys=$(realpath "$keys") layers=$(realpath "$layers") output=$(realpath "$output") cache=$(realpath "$cache")/image

started=$SECONDS
progress() { printf '[%3d s] %s\n' $((SECONDS - started)) "$*"; }

progress "tools: Debian $suite root with mkosi"
tools=$("$here/scripts/tools-root.sh" "$suite" "$cache")

# mkosi's caches are not made for two builds at once.
exec 8>"$cache/build.lock"
flock --nonblock 8 || { progress "another image is being built; waiting for it" && flock 8; }

work=$(mktemp -d "$cache/work.XXXXXX")
trap 'rm -rf "$work"' EXIT
mkdir -p "$work"/{definition,out,workspace} "$cache"/{packages,base$profile}
in_root() {
    "$here/scripts/in-root.sh" "$tools" "$here:/definition:ro" "$keys:/keys:ro" "$binaries:/binaries:ro" "$work:/work" \
        "$cache/packages:/cache/packages" "$cache/base$profile:/cache/base" -- "$@"
}
SOURCE_DATE_EPOCH=$(<"$here/source-date-epoch")
export SOURCE_DATE_EPOCH

progress "definition: mode $mode${profile:+, profile $profile}"
"$here/scripts/assemble.sh" "$here" "$binaries" "$keys" "$layers" "$tools" "$work/definition" "$profile"
cat >"$work/definition/mkosi.conf.d/99-build.conf" <<EOF
[Output]
OutputDirectory=/work/out
Seed=8f0f6c0e-3b1c-4d4e-9e5a-4a2f2f6d7c11
[Content]
SourceDateEpoch=$SOURCE_DATE_EPOCH
Initrds=/work/initrd.cpio.zst
[Validation]
SecureBootKey=/keys/secure-boot/db.key
SecureBootCertificate=/keys/secure-boot/db.crt
VerityKey=/keys/image/root-hash.key
VerityCertificate=/keys/image/root-hash.crt
[Build]
Incremental=yes
CacheDirectory=/cache/base
PackageCacheDirectory=/cache/packages
WorkspaceDirectory=/work/workspace
EOF

progress "initrd: init program"
in_root /definition/scripts/initrd.sh /binaries/palisade-initrd /work/initrd.cpio.zst

progress "system: packages, labels, verity (mkosi)"
if ! in_root mkosi --directory /work/definition ${profile:+--profile "$profile"} --force build >"$work/mkosi.log" 2>&1; then
    cp "$work/mkosi.log" "$output/build.log"
    tail -n 40 "$work/mkosi.log" >&2
    fail "mkosi failed; the whole log is $output/build.log"
fi
cp "$work/mkosi.log" "$output/build.log"

progress "kernel images: ${modes[*]}, signed"
# In plain text in mkosi's own kernel image, which comes first on the disk.
root_hash=$(grep -aom 1 -E 'roothash=[0-9a-f]{64}' "$work/out/disk.raw" | head -n 1 | cut -d= -f2 || true)
[[ -n $root_hash ]] || fail "mkosi's image carries no root hash"
in_root /definition/scripts/boot-images.sh /definition /work/out/disk.raw "$root_hash" "$mode" /keys "${modes[@]}"

progress "firmware: variables with our keys"
in_root /definition/scripts/firmware.sh /keys /work/out/OVMF_VARS.fd

progress "description"
cp --sparse=always "$work/out/disk.raw" "$output/.disk.raw.new"
cp "$work/out/OVMF_VARS.fd" "$output/.OVMF_VARS.fd.new"
"$here/scripts/describe.sh" "$output/.disk.raw.new" "$root_hash" "$work/definition" "$here" "$keys" "$mode${profile:+-$profile}" "$tools" >"$output/.image.json.new"
for file in disk.raw OVMF_VARS.fd image.json; do
    mv -f "$output/.$file.new" "$output/$file"
done
progress "done: $output/disk.raw, $(du -h "$output/disk.raw" | cut -f1) on disk"
