/** What a host is doing while it boots, read off its serial console, which is quiet but for these. */

/** In the order of a boot; the last one whose text has been seen is the present one. */
const phases: { name: string; text: RegExp }[] = [
  { name: "firmware", text: /BdsDxe: loading/ },
  { name: "boot loader", text: /BdsDxe: starting/ },
  { name: "kernel", text: /EFI stub:|Linux version/ },
  { name: "initrd", text: /palisade-initrd:/ },
  { name: "verified root", text: /palisade-initrd: root \S+ opened/ },
  { name: "integrity policy", text: /palisade-initrd: integrity policy/ },
  { name: "system services", text: /palisade-initrd: .*starting systemd|systemd\[1\]:/ },
];

/** The furthest phase that a piece of console shows; undefined when it shows none. */
export function phaseOf(console: string): string | undefined {
  return phases.findLast(({ text }) => text.test(console))?.name;
}
