#!/usr/bin/env bash
# What the host image takes from this clone and from pinned modules, into build/host/: the agent, the initrd's program,
# containerd, the pause image. All static; a file is replaced only when its content changes, since the image is built
# anew for changed content.
source "$(dirname "$0")/../lib.sh"

# place FILE TARGET: TARGET gets FILE's content, at once or not at all.
place() {
  cmp -s "$1" "$2" && return
  mkdir -p "$(dirname "$2")"
  cp "$1" "$2.new"
  mv "$2.new" "$2"
}

# Go links into a folder of its own and skips what is up to date there.
own_programs() {
  mkdir -p build/go
  CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags="-s -w" -o build/go/palisade-agent ./hosts/agent
  CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags="-s -w" -o build/go/palisade-initrd ./hosts/initrd
  place build/go/palisade-agent build/host/palisade-agent
  place build/go/palisade-initrd build/host/palisade-initrd
}

# Our build of the pinned containerd (hosts/containerd); a Go module of its own, for all that it depends on.
containerd() {
  local version folder program
  version=$(sed -n 's|^\s*github.com/containerd/containerd/v2 \(v[0-9.]*\).*|\1|p' hosts/containerd/go.mod)
  (cd hosts/containerd && CGO_ENABLED=0 GOWORK=off go build -mod=readonly -trimpath -buildvcs=false -tags=no_btrfs \
    -ldflags="-s -w -X github.com/containerd/containerd/v2/version.Version=$version" -o ../../build/go/containerd .)
  place build/go/containerd build/host/containerd
  folder=$(pinned_tool containerd)
  for program in "$folder"/*; do
    place "$program" "build/host/${program##*/}"
  done
  echo "$version" >&3
}

pause_image() {
  hosts/pause/build.sh build/host/.pause.oci.tar
  place build/host/.pause.oci.tar build/host/pause.oci.tar
  rm -f build/host/.pause.oci.tar
}

steps() {
  step "containerd" containerd
  step "agent and initrd program" own_programs
  step "pause image" pause_image
}
echo "Building the host's programs"
with_lock build/.host.lock steps
