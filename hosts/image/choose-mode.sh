#!/bin/bash
# Makes the image of another mode out of one that build.sh made: the same root file system, another of its signed kernel
# images where the firmware looks. Needs root, and the cache that the image was built with.
#
#   choose-mode.sh --image DIR --mode MODE --output DIR --cache DIR
set -euo pipefail

here=$(dirname "$(realpath "$0")")
image="" mode="" output="" cache=""

fail() {
    echo "choose-mode.sh: $*" >&2
    exit 1
}

while (($#)); do
    case $1 in
    --image | --mode | --output | --cache)
        (($# > 1)) || fail "$1 needs a value"
        declare "${1#--}=$2"
        shift 2
        ;;
    *) fail "unknown argument $1; see the head of $0" ;;
    esac
done
for argument in image mode output cache; do
    [[ -n ${!argument:-} ]] || fail "--$argument is missing; see the head of $0"
done
tools=$(realpath "$cache")/image/$(sed -nE 's/.*"tools": "([^"]+)".*/\1/p' "$image/image.json")
[[ -d $tools ]] || fail "--cache $cache lacks the tools that $image was built with"
mkdir -p "$output"

cp --sparse=always "$image/disk.raw" "$output/.disk.raw.new"
cp "$image/OVMF_VARS.fd" "$output/OVMF_VARS.fd"
"$here/scripts/in-root.sh" "$tools" "$here:/definition:ro" "$(realpath "$output"):/work" -- \
    /definition/scripts/move-boot-image.sh "/work/.disk.raw.new" "$mode" || fail "--mode $mode: $image has no kernel image of it"

policy=$(head -n 1 "$("$here/scripts/policy-of-mode.sh" "$here" "$mode")")
sed -E -e "s/^(  \"digest\": ).*/\1\"sha256:$(sha256sum "$output/.disk.raw.new" | cut -d' ' -f1)\",/" \
    -e "s/^(  \"mode\": \")[a-z]+/\1$mode/" \
    -e "s/^(    \"name\": ).*/\1\"$(sed -nE 's/.*policy_name=([^ ]+).*/\1/p' <<<"$policy")\",/" \
    -e "s/^(    \"version\": ).*/\1\"$(sed -nE 's/.*policy_version=([^ ]+).*/\1/p' <<<"$policy")\"/" \
    "$image/image.json" >"$output/.image.json.new"
for file in disk.raw image.json; do
    mv -f "$output/.$file.new" "$output/$file"
done
