#!/usr/bin/env bash
# Code made from contracts: the agent API's Go and TypeScript from hosts/api/*.proto, the provider's SDK from
# components/provider/schema.json. With --check nothing is written; what differs is named and fails.
source "$(dirname "$0")/lib.sh"

sdk() {
  go run -C tools/sdkgen . -schema "$root/components/provider/schema.json" -output "$root/components/sdk" "$@"
}

if [[ ${1:-} != --check ]]; then
  node_modules/.bin/buf generate
  sdk
  exit 0
fi

temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
node_modules/.bin/buf generate --output "$temporary"
status=0
# Both directions: a generated file that has no source any more is as wrong as a changed one.
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
exit "$status"
