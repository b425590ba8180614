import { expect, it } from "vitest";
import { phaseOf } from "./boot-phases.js";

it("tells the furthest phase that the console shows", () => {
  const console = [
    '\x1b[2J\x1b[01;01HBdsDxe: loading Boot0001 "UEFI Misc Device" from PciRoot(0x0)/Pci(0x1,0x0)',
    'BdsDxe: starting Boot0001 "UEFI Misc Device" from PciRoot(0x0)/Pci(0x1,0x0)',
    "EFI stub: UEFI Secure Boot is enabled.",
    "palisade-initrd: root e15984bdfe1b563b… opened, signature checked by the kernel",
    "palisade-initrd: integrity policy palisade active, enforce=0",
    "palisade-initrd: integrity of firmware, kernel, root and policy as expected; starting systemd",
  ];
  const phases = console.map((_line, index) => phaseOf(console.slice(0, index + 1).join("\n")));
  expect(phases).toEqual(["firmware", "boot loader", "kernel", "verified root", "integrity policy", "system services"]);
  expect(phaseOf("")).toBeUndefined();
});
