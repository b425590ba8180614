#!/usr/bin/env bash
# Code made from contracts: the agent API's Go and TypeScript from hosts/api/*.proto, the provider's SDK and the types
# of its inputs from provider/schema.json, those of the drop-in plugin from command-plugin/schema.json, the eBPF objects
# from bpf/src. With --check nothing is written: a file that differs is named, and the check fails.
source "$(dirname "$0")/../lib.sh"

sdk() {
  go run -C tools/build/sdkgen . -schema "$root/provider/schema.json" -output "$root/sdk" \
    -inputs "$root/provider/schema/inputs.ts" "$@"
  go run -C tools/build/sdkgen . -schema "$root/command-plugin/schema.json" -output "" \
    -inputs "$root/command-plugin/inputs.ts" "$@"
}

# The objects are checked in, with checksums of their sources, so only people who change the sources need clang.
bpf_sums=bpf/objects.sha256

bpf_sum() {
  sha256sum bpf/src/*.[ch] bpf/src/.clang-format bpf/datapath/generate.go bpf/datapath/*_bpfel*
}

bpf() {
  if bpf_sum | cmp -s - "$bpf_sums"; then return; fi
  command -v clang-19 >/dev/null && command -v llvm-strip-19 >/dev/null && command -v clang-format-19 >/dev/null || fail \
    "bpf/src was changed; making its objects anew needs clang-19:" \
    "sudo apt-get install clang-19 llvm-19 clang-format-19 libbpf-dev"
  clang-format-19 -i bpf/src/*.[ch]
  (cd bpf/datapath && go generate .)
  bpf_sum >"$bpf_sums"
}

# Where clang is installed, the objects are built again in another folder and compared.
bpf_check() {
  bpf_sum | diff - "$bpf_sums" >&2 || return 1
  command -v clang-19 >/dev/null && command -v llvm-strip-19 >/dev/null || return 0
  mkdir "$temporary/bpf"
  cp -r bpf/src bpf/datapath go.mod go.sum "$temporary/bpf"
  (cd "$temporary/bpf/datapath" && go generate .)
  local file status=0
  for file in bpf/datapath/*_bpfel*; do
    cmp "$file" "$temporary/bpf/datapath/${file##*/}" >&2 || status=1
  done
  return "$status"
}

if [[ ${1:-} != --check ]]; then
  node_modules/.bin/buf generate
  sdk
  bpf
  exit 0
fi

temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
node_modules/.bin/buf generate --output "$temporary"
status=0
# In both directions: a generated file whose source is gone is as wrong as a changed one.
while read -r file; do
  if ! cmp -s "$temporary/$file" "$file"; then
    echo "differs from its .proto: $file" >&2
    status=1
  fi
done < <({
  (cd "$temporary" && find hosts/api -type f)
  find hosts/api -name '*.pb.go' -o -name '*.connect.go' -o -path 'hosts/api/gen/*' -name '*_pb.ts'
} | sort -u)
sdk -check || status=1
bpf_check || status=1
exit "$status"
