/**
 * What runs in the rescue system: POSIX shell, with util-linux, e2fsprogs and gzip. Each script may be interrupted at
 * any point and run again. Only one runs at a time, because a broken connection may have left one running.
 */
import { diskId } from "./disks.js";

/** In the rescue system, usually in memory. Not in /run, because some systems execute nothing from it. */
export const workFolder = "/root/palisade-install";

/** Where the state begins, in sectors of 512 bytes: 4 GiB. It stays where it is when a greater image is installed. */
const stateStart = 8388608;

/** The role api of the agent (hosts/image sysusers.d). */
const agentUser = "840:840";

const quoted = (text: string): string => `'${text.replaceAll("'", `'\\''`)}'`;

const head = `set -eu
umask 077
fail() { echo "$*" >&2; exit 1; }
mkdir -p ${workFolder}
exec 9>${workFolder}/lock
flock 9
efivars=/sys/firmware/efi/efivars
efi_flag() { od -An -tu1 -j4 -N1 "$efivars/$1-8be4df61-93ca-11d2-aa0d-00e098032b8c" 2>/dev/null | tr -d ' ' | grep 1 || echo 0; }
# From the disk itself: lsblk takes its report of the content from udev, which may not run.
signatures() { wipefs --noheadings --output TYPE "$1" | sort -u | paste -sd, -; }
probe() { blkid --probe --output value --match-tag "$2" "$1" || true; }
# Ours is a disk with our table, or with that of an image that was written and not finished: a mark in front of the first
# partition names it. A table that others make is neither.
table_id() { dd if="$1" bs=1 skip=568 count=16 status=none | od -An -tx1 | tr -d ' \\n'; }
is_ours() {
  [ "$(probe "$1" PTUUID | tr a-f A-F)" = ${diskId} ] ||
    [ "$(dd if="$1" bs=512 skip=2047 count=1 status=none | head -c 41 | tr -d '\\000')" = "palisade $(table_id "$1")" ]
}
# lsblk takes the identity of a disk from udev too; the kernel has it as well.
known_as() {
  reported=$(lsblk --nodeps --noheadings --output "$1" "$2" | sed 's/^ *//; s/ *$//')
  [ -z "$reported" ] || { echo "$reported"; return; }
  case $1 in SERIAL) files="serial device/serial" ;; WWN) files="wwid device/wwid" ;; MODEL) files=device/model ;; esac
  for file in $files; do
    [ ! -r "/sys/block/\${2##*/}/$file" ] || { tr -cd ' -~' <"/sys/block/\${2##*/}/$file" | tr -d '"\\\\' | sed 's/^ *//; s/ *$//'; return; }
  done
}
state_partition() {
  for candidate in $(lsblk --list --noheadings --paths --output PATH "$1" | tail -n +2); do
    [ "$(probe "$candidate" PART_ENTRY_NAME)" != palisade-state ] || echo "$candidate"
  done
}
mount_state() {
  partition=$(state_partition "$device")
  [ -n "$partition" ] || fail "the kernel does not see the partition palisade-state of $device"
  mkdir -p ${workFolder}/state
  mountpoint -q ${workFolder}/state || mount "$partition" ${workFolder}/state
}
`;

/** Prints an Inventory; refuses a rescue system that cannot install. */
export const inventoryScript = `${head}
[ "$(id -u)" = 0 ] || fail "log in as root: $(id -un) cannot write disks"
missing=
for program in lsblk sfdisk wipefs blkid blockdev flock mkfs.ext4 gzip sha256sum dd od base64 mount mountpoint; do
  command -v "$program" >/dev/null || missing="$missing $program"
done
[ -z "$missing" ] || fail "the rescue system lacks:$missing. Any Linux with util-linux, e2fsprogs and gzip will do"
[ -d /sys/firmware/efi ] || fail "the rescue system was not started by UEFI: switch the machine's firmware to UEFI and start it again"
[ -d $efivars ] && [ -n "$(ls $efivars)" ] || mount -t efivarfs efivarfs $efivars
flag() { [ "$1" = 1 ] && echo true || echo false; }
printf '{"setupMode":%s,"secureBoot":%s,"tpm":%s,"network":[' "$(flag "$(efi_flag SetupMode)")" "$(flag "$(efi_flag SecureBoot)")" \\
  "$([ -e /sys/class/tpm/tpm0 ] && echo true || echo false)"
comma=
for device in /sys/class/net/*; do
  [ -e "$device/device" ] || continue
  printf '%s{"name":"%s","address":"%s"}' "$comma" "\${device##*/}" "$(cat "$device/address")"
  comma=,
done
printf '],"contents":['
comma=
for disk in $(lsblk --nodeps --noheadings --paths --output PATH); do
  printf '%s{"path":"%s","serial":"%s","wwn":"%s","model":"%s","signatures":"%s","isOurs":%s}' "$comma" "$disk" \\
    "$(known_as SERIAL "$disk")" "$(known_as WWN "$disk")" "$(known_as MODEL "$disk")" \\
    "$(signatures "$disk" 2>/dev/null)" "$(is_ours "$disk" 2>/dev/null && echo true || echo false)"
  comma=,
done
printf '],"disks":'
lsblk --json --bytes --output PATH,TYPE,SIZE,RO
printf '}'
`;

export interface WriteOptions {
  device: string;
  serial: string;
  wwn: string;
  /** Whether a content of others may be lost. */
  mayOverwrite: boolean;
  /** Hex. */
  sha256: string;
  /** Bytes of the image. */
  size: number;
}

/**
 * Writes the image and reads it back. The first MiB, with the partition table, comes last: a machine that is
 * interrupted does not start half an image. Until then the disk carries a table that says whose it is.
 */
export function writeScript({ device, serial, wwn, mayOverwrite, sha256, size }: WriteOptions): string {
  return `${head}
device=${quoted(device)}
size=${size}
[ -f ${workFolder}/image.gz ] || fail "the host's image is not in the rescue system, which was started anew: give installation another number"
[ "$(known_as SERIAL "$device")" = ${quoted(serial)} ] && [ "$(known_as WWN "$device")" = ${quoted(wwn)} ] ||
  fail "$device is another disk than in the inventory: serial $(known_as SERIAL "$device"), wwn $(known_as WWN "$device"). Nothing was written"
[ "$(blockdev --getss "$device")" = 512 ] || fail "$device has sectors of $(blockdev --getss "$device") bytes; the image needs 512"
mountpoint -q ${workFolder}/state && umount ${workFolder}/state
[ -z "$(lsblk --noheadings --output MOUNTPOINT "$device" | tr -d ' \\n')" ] || fail "$device is in use: it is mounted. Nothing was written"
if ! is_ours "$device"; then
  content=$(signatures "$device")
  [ -z "$content" ] || ${mayOverwrite} || fail "$device has a content: $content. Nothing was written"
  printf 'label: gpt\\nlabel-id: ${diskId}\\n' | sfdisk --quiet --wipe always "$device"
fi
echo "writing $((size >> 20)) MiB to $device"
gzip -dc ${workFolder}/image.gz | {
  dd bs=1M count=1 iflag=fullblock of=${workFolder}/first status=none
  dd bs=1M iflag=fullblock of="$device" seek=1 conv=notrunc,fsync status=none
}
echo "reading it back"
blockdev --flushbufs "$device"
read_back() { dd if="$device" bs=1M skip=1 count=$(((size + 1048575) >> 20)) iflag=direct status=none | head -c $((size - 1048576)); }
sum=$({ cat ${workFolder}/first; read_back; } | sha256sum | cut -c1-64)
[ "$sum" = ${sha256} ] || fail "what $device gives back is sha256:$sum, the image is sha256:${sha256}. Is the disk sound? Run \\\`pulumi up\\\` again"
printf 'palisade %s' "$(table_id ${workFolder}/first)" | dd of=${workFolder}/first bs=512 seek=2047 conv=notrunc status=none
dd if=${workFolder}/first of="$device" bs=1M conv=notrunc,fsync status=none
dd if="$device" bs=1M count=1 iflag=direct status=none | cmp - ${workFolder}/first || fail "$device does not give back its first MiB"
echo "partition for the state"
sfdisk --quiet --relocate gpt-bak-std "$device"
echo 'start=${stateStart}, size=+, name=palisade-state' | sfdisk --quiet --append "$device"
sfdisk --quiet --disk-id "$device" ${diskId}
blockdev --rereadpt "$device" 2>/dev/null || true
sync
echo "sha256:$sum"
`;
}

/** Puts the keys from standard input (`palisade metal firmware-keys`) into a firmware that is in setup mode. */
export const firmwareScript = `${head}
setup=$(efi_flag SetupMode)
# The last line may have no end.
while read -r name guid offset data || [ -n "$name" ]; do
  file=$efivars/$name-$guid
  printf '%s' "$data" | base64 -d >${workFolder}/variable
  if [ "$setup" = 1 ]; then
    { printf '\\047\\000\\000\\000'; cat ${workFolder}/variable; } >${workFolder}/write
    [ ! -e "$file" ] || chattr -i "$file"
    dd if=${workFolder}/write of="$file" bs=64k status=none || fail "the firmware does not take $name"
  fi
  tail -c +$((offset + 1)) ${workFolder}/variable >${workFolder}/wanted
  # Through cat, as efivarfs cannot be sought in.
  cat "$file" 2>/dev/null | tail -c +5 | cmp -s - ${workFolder}/wanted ||
    fail "the firmware has other keys ($name) and is not in setup mode: delete its Secure Boot keys in the firmware's menu, start the rescue system again"
  echo "$name is ours"
done
[ "$(efi_flag SetupMode)" = 0 ] || fail "the firmware is still in setup mode although it took the keys: switch Secure Boot on in its menu"
`;

/** Makes the host's identity on the state partition, or takes the one that is there; prints an EnrollmentRequest. */
export function requestScript(device: string): string {
  return `${head}
device=${quoted(device)}
! command -v udevadm >/dev/null || udevadm settle
partition=$(state_partition "$device")
# A state that is there stays: the machine is the same host with a newer image.
[ -z "$partition" ] || [ "$(probe "$partition" LABEL)" = palisade-state ] || mkfs.ext4 -q -F -L palisade-state "$partition" >&2
mount_state
mkdir -p ${workFolder}/state/agent/api
chmod 755 ${workFolder}/state/agent
chmod 700 ${workFolder}/agent
${workFolder}/agent identity -data ${workFolder}/state/agent/api request
`;
}

/**
 * Takes the EnrollmentResponse from standard input, and makes the host what the firmware starts next; prints the host's
 * id.
 */
export function enrollScript(device: string): string {
  return `${head}
device=${quoted(device)}
mount_state
id=$(${workFolder}/agent identity -data ${workFolder}/state/agent/api enroll)
chown -R ${agentUser} ${workFolder}/state/agent/api
umount ${workFolder}/state
if command -v efibootmgr >/dev/null; then
  for entry in $(efibootmgr | sed -n 's/^Boot\\([0-9A-F]\\{4\\}\\)\\*\\{0,1\\} Palisade.*/\\1/p'); do efibootmgr --quiet --delete-bootnum --bootnum "$entry"; done
  efibootmgr --quiet --create --disk "$device" --part 1 --label Palisade --loader '\\EFI\\BOOT\\BOOTX64.EFI' >&2
fi
sync
echo "$id" >${workFolder}/installed
echo "$id"
`;
}
