# shellcheck shell=bash
# The partition with boot files, for mtools. Sourced in the tools root, with the disk in $disk.

# It comes first on the disk.
start=$(sfdisk --json "${disk:?}" | python3 -c 'import json, sys; print(json.load(sys.stdin)["partitiontable"]["partitions"][0]["start"] * 512)')
# shellcheck disable=SC2034  # for those who source this
esp=$disk@@$start
export MTOOLS_SKIP_CHECK=1
# FAT keeps local times.
export TZ=UTC
