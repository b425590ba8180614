# shellcheck shell=bash
# What every script of this folder shares: strict mode, the directories, steps with their times.
# Sourced, never run.
set -euo pipefail

# A script that sources this file works in the root of the clone.
cd "$(dirname "${BASH_SOURCE[0]}")/.."
root=$PWD

# What may be deleted at any time: built tools, downloaded packages, images.
export PALISADE_CACHE="${PALISADE_CACHE:-${XDG_CACHE_HOME:-$HOME/.cache}/palisade}"
# What only the operator has: keys, passphrase, state of the stacks.
export PALISADE_HOME="${PALISADE_HOME:-${XDG_DATA_HOME:-$HOME/.local/share}/palisade}"
# What runs on this machine: images, virtual machines, disks, registries.
export PALISADE_STATE="${PALISADE_STATE:-${XDG_STATE_HOME:-$HOME/.local/state}/palisade}"

for variable in PALISADE_CACHE PALISADE_HOME PALISADE_STATE; do
  [[ ${!variable} == /* ]] || export "$variable=$root/${!variable}"
done
unset variable

# The tools of this clone take precedence; outer_path is the PATH of the machine alone, to look for suitable tools.
outer_path=":$PATH:"
# A replacement does not find the second of two neighbours, which share a colon.
while [[ $outer_path == *":$root/build/bin:"* ]]; do
  outer_path="${outer_path/":$root/build/bin:"/:}"
done
outer_path="${outer_path#:}"
outer_path="${outer_path%:}"
export PATH="$root/build/bin:$outer_path"

# Everything is compiled like the programs that are delivered, so that tests and linters reuse what was compiled for
# them.
export CGO_ENABLED=0
[[ " ${GOFLAGS:-} " == *" -trimpath "* ]] || export GOFLAGS="${GOFLAGS:+$GOFLAGS }-trimpath"

# fail MESSAGE...: prints a line for each argument and exits.
fail() {
  printf 'palisade: %s\n' "$@" >&2
  exit 1
}

# seconds_since START: with START from $EPOCHREALTIME.
seconds_since() {
  awk -v start="${1/,/.}" -v now="${EPOCHREALTIME/,/.}" 'BEGIN { printf "%.1f", now - start }'
}

# step TITLE COMMAND...: runs COMMAND with its output in build/logs and prints one line with the time it took. The
# command may write what it found to file descriptor 3; that is shown behind the time. VERBOSE=1 shows the output.
step() {
  local title=$1 log status started=$EPOCHREALTIME note_file note
  shift
  mkdir -p build/logs
  log="build/logs/${title//[^a-zA-Z0-9]/-}.log"
  note_file=$(mktemp)
  printf '  %-34s' "$title"
  # Not `if command`: inside a condition the command would lose its `set -e`.
  set +e
  if [[ -n ${VERBOSE:-} ]]; then
    printf '\n'
    (set -e; "$@") 3>"$note_file"
  else
    (set -e; "$@") >"$log" 2>&1 3>"$note_file"
  fi
  status=$?
  set -e
  note=$(<"$note_file")
  rm -f "$note_file"
  if ((status != 0)); then
    printf ' failed after %s s\n' "$(seconds_since "$started")"
    if [[ -z ${VERBOSE:-} ]]; then
      tail -n 30 "$log" >&2
      printf 'palisade: %s failed; all of its output is in %s\n' "$title" "$root/$log" >&2
    fi
    exit "$status"
  fi
  printf '%8s s  %s\n' "$(seconds_since "$started")" "$note"
}

# with_lock FILE COMMAND...: runs COMMAND while no other process of this machine holds the lock; it ends with the
# process. The lock's descriptor is not handed down, so that what COMMAND leaves running does not keep it.
with_lock() {
  local file=$1 descriptor
  shift
  mkdir -p "$(dirname "$file")"
  exec {descriptor}>>"$file"
  flock "$descriptor"
  # Not in a condition: COMMAND would lose its `set -e`.
  "$@" {descriptor}>&-
  exec {descriptor}>&-
}

# content_hash FILE...: one hash over names and contents, the content coming from standard input as well.
content_hash() {
  { cat; sha256sum -- "$@"; } | sha256sum | cut -c1-16
}

# pinned_tool NAME: the folder with the programs that tools/pins/NAME pins, built at the first call.
pinned_tool() {
  provider/local/patching/tools/go-tool.sh "tools/pins/$1"
}

# link_tool NAME TARGET: TARGET becomes build/bin/NAME.
link_tool() {
  mkdir -p build/bin
  [[ $(readlink "build/bin/$1" || true) == "$2" ]] && return
  ln -s "$2" "build/bin/.$1.$$"
  mv -T "build/bin/.$1.$$" "build/bin/$1"
}
