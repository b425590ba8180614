/** The phases of a boot, as the serial console shows them. */

/** In the order of a boot; the last phase whose text appears is the present one. */
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
