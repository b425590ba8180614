#!/usr/bin/env bash
# Builds the programs of a Go module that pins them (go.mod with `tool` lines) once for each content, and prints the
# folder they lie in: $PALISADE_CACHE/tools/<name of the module's folder>/<hash>. The hash covers everything that the
# result depends on: go.mod, go.sum, build flags and environment, the module's own code, compiler, platform.
# Usage: go-tool.sh FOLDER
set -euo pipefail
cd "${1:?usage: go-tool.sh FOLDER}" || exit
[[ -f go.mod ]] || {
  echo "palisade: there is no go.mod in $PWD" >&2
  exit 1
}
name=${PWD##*/}
parent="${PALISADE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/palisade}/tools/$name"
export CGO_ENABLED=0 GOWORK=off

# One flag of `go build` a line.
flags=()
[[ -f build.flags ]] && mapfile -t flags <build.flags
# One NAME=value a line: what flags cannot say, such as GOEXPERIMENT.
environment=()
[[ -f build.environment ]] && mapfile -t environment <build.environment

# Names are relative to the module, so that the result does not depend on where the module lies.
mapfile -t files < <(find . -name '*.go' -o -name go.mod -o -name go.sum -o -name 'build.*' | sort)
hash=$({ go version && go env GOOS GOARCH GOAMD64 && sha256sum -- "${files[@]}"; } | sha256sum | cut -c1-16)
folder="$parent/$hash"

build() {
  [[ -d $folder ]] && return
  local temporary="$parent/.new-$hash"
  # A killed build of this content may have left it; no other one runs now, as the lock is held.
  rm -rf "$temporary"
  mkdir "$temporary"
  # -mod=readonly: versions are those of the lock, never what a registry says today.
  env "${environment[@]}" go build -mod=readonly -trimpath -buildvcs=false "${flags[@]}" -o "$temporary/" tool >&2
  mv -T "$temporary" "$folder"
}
mkdir -p "$parent"
if [[ ! -d $folder ]]; then
  exec {lock}>>"$parent/$hash.lock"
  flock "$lock"
  # The lock's descriptor is not handed down, so that a process that stays does not keep it.
  build {lock}>&-
fi
echo "$folder"
