#!/usr/bin/env bash
# Runs one static program as root in a small virtual machine without a network (test/support/guest/boot.sh), and ends
# with its exit status. Standard input, its end too, and standard output are the program's; its errors come out when it
# fails, in the end of the console's log.
#
#   run.sh PROGRAM [FILE=PATH_IN_GUEST]... -- [ARGUMENT]...
#
# Paths are absolute, or relative to the clone's root. PALISADE_GUEST_LOG: where the console's log is kept; default:
# nowhere.
source "$(dirname "$0")/../../../tools/lib.sh"
(($# >= 2)) || fail "usage: run.sh PROGRAM [FILE=PATH_IN_GUEST]... -- [ARGUMENT]..."
command -v qemu-system-x86_64 >/dev/null || fail "qemu-system-x86_64 cannot be run; install qemu-system-x86"
exec 3<&0
boot=$(test/support/guest/boot.sh)

work=$(mktemp -d)
qemu='' follower=''
end() {
  if [[ -n $qemu ]]; then
    kill -KILL "$qemu" 2>/dev/null || true
    wait "$qemu" "$follower" || true
  fi
  rm -rf "$work"
}
trap end EXIT
trap 'exit 130' INT
trap 'exit 143' TERM HUP

mkdir "$work/root"
install -m 755 "$1" "$work/root/program"
shift
while [[ ${1:-} == *=* ]]; do
  mkdir -p "$work/root/$(dirname "${1#*=}")"
  cp "${1%%=*}" "$work/root/${1#*=}"
  shift
done
[[ ${1:-} == -- ]] || fail "before the program's arguments there has to be --, not \"${1:-}\""
shift
printf '%s' "${@/%/$'\n'}" >"$work/root/arguments"
test/support/rescue/pack.sh "$work/root" | cat "$boot/initrd" - >"$work/initrd"
console=${PALISADE_GUEST_LOG:-$work/console}
: >"$work/output"

ends_with_this=(setpriv --pdeathsig KILL)
# Input and output are ports of their own: a port whose input has ended discards output. A file takes the output, for
# which QEMU never has to wait, so that nothing is lost when the guest powers off. One thread: see machineArguments in
# provider/local/hypervisor/qemu/accelerator.ts.
"${ends_with_this[@]}" qemu-system-x86_64 -no-user-config -nodefaults -no-reboot -display none \
  -machine q35,vmport=off -accel tcg,thread=single,tb-size=512 -cpu max -smp 2 -m 2G \
  -kernel "$boot/vmlinuz" -initrd "$work/initrd" -append "console=ttyS0 quiet panic=-1 mitigations=off" \
  -serial "file:$console" -device virtio-serial-pci \
  -chardev stdio,id=input,signal=off -device virtserialport,chardev=input,name=input,nr=1 \
  -chardev "file,id=output,path=$work/output" -device virtserialport,chardev=output,name=output,nr=2 \
  -chardev "file,id=status,path=$work/status" -device virtserialport,chardev=status,name=status,nr=3 \
  <&3 >"$work/complaint" 2>&1 &
qemu=$!
"${ends_with_this[@]}" tail --bytes=+1 --follow --sleep-interval=0.1 --pid="$qemu" "$work/output" 2>/dev/null &
follower=$!
wait "$qemu" || true
qemu=
wait "$follower"
status=$(cat "$work/status" 2>/dev/null || true)
if [[ $status != 0 ]]; then cat "$work/complaint" <(tail -n 100 "$console") >&2; fi
[[ -n $status ]] || fail "the guest ended without the program's exit status"
exit "$status"
