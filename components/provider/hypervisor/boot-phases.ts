/** What a host is doing while it boots, read off its serial console. */

/** In the order of a boot; the last one whose text has been seen is the present one. */
const phases: { name: string; text: RegExp }[] = [
  { name: "firmware", text: /BdsDxe|UEFI/ },
  { name: "boot loader", text: /BdsDxe: starting|systemd-stub|EFI stub/ },
  { name: "kernel", text: /Linux version|\[ {4}0\.0/ },
  { name: "initrd", text: /palisade-initrd|Run \/init|initrd/i },
  { name: "verified root", text: /device-mapper: verity|EROFS|erofs/ },
  { name: "system", text: /systemd\[1\]|Welcome to/ },
  { name: "container runtime", text: /containerd/ },
  { name: "agent", text: /palisade-agent/ },
];

/** The furthest phase that a piece of console shows; undefined when it shows none. */
export function phaseOf(console: string): string | undefined {
  return phases.findLast(({ text }) => text.test(console))?.name;
}
