#!/usr/bin/env bash
# Builds the programs of tools/<name>/go.mod once for each content and prints the folder they lie in.
# The cache's key is everything that the result depends on: go.mod, go.sum, build flags and environment, code of ours, compiler,
# platform.
# Usage: go-tool.sh NAME
source "$(dirname "$0")/lib.sh"
name=${1:?usage: go-tool.sh NAME}
module="tools/$name"
[[ -f $module/go.mod ]] || fail "there is no $module/go.mod"

# One flag of `go build` a line.
flags=()
[[ -f $module/build.flags ]] && mapfile -t flags <"$module/build.flags"

export CGO_ENABLED=0 GOWORK=off
# One NAME=value a line: what cannot be said by flags, as GOEXPERIMENT.
environment=()
[[ -f $module/build.environment ]] && mapfile -t environment <"$module/build.environment"

# Names relative to the module, so that the result does not depend on where the module lies.
module_hash() {
  cd "$module"
  local files=()
  mapfile -t files < <(find . -name '*.go' -o -name go.mod -o -name go.sum -o -name 'build.*' | sort)
  { go version; go env GOOS GOARCH GOAMD64; } | content_hash "${files[@]}"
}
hash=$(module_hash)
parent="$PALISADE_CACHE/tools/$name"
folder="$parent/$hash"

build() {
  [[ -d $folder ]] && return
  local temporary
  # What a killed build of this content left; none runs now, as the lock is held.
  rm -rf "$parent/.new-$hash"
  temporary="$parent/.new-$hash"
  mkdir "$temporary"
  # -mod=readonly: versions are those of the lock, never what a registry says today.
  (cd "$module" && env "${environment[@]}" go build -mod=readonly -trimpath -buildvcs=false "${flags[@]}" -o "$temporary/" tool) >&2
  mv -T "$temporary" "$folder"
}
mkdir -p "$parent"
[[ -d $folder ]] || with_lock "$parent/$hash.lock" build
echo "$folder"
