/** QEMU on the machine that runs Pulumi. */
import type { Hypervisor } from "../../backends/index.js";
import type { HypervisorMarkers } from "./markers.js";
import { StateDisks } from "./state-disks.js";
import type { VirtualMachines } from "./virtual-machines.js";

/** `hypervisor.uri` of this hypervisor; the only one so far. */
export const localUri = "local";

/** @throws naming the property for every uri but `local`. */
export function requireLocal(uri: string): void {
  if (uri === localUri) return;
  throw new Error(
    `hypervisor.uri: ${JSON.stringify(uri)} is reserved and not supported yet; use "${localUri}", QEMU on the machine that runs Pulumi`,
  );
}

export function createLocalHypervisor(markers: HypervisorMarkers, machines: VirtualMachines): Hypervisor {
  const disks = new StateDisks(markers);
  return {
    createStateDisk: (op, spec) => disks.create(op, spec),
    readStateDisk: (id) => disks.read(id),
    resizeStateDisk: (op, id, sizeGiB) => disks.resize(op, id, sizeGiB),
    deleteStateDisk: (op, id) => disks.delete(op, id),
    createVirtualMachine: (op, spec) => machines.create(op, spec),
    readVirtualMachine: (id) => machines.read(id),
    updateVirtualMachine: (op, id, spec) => machines.update(op, id, spec),
    deleteVirtualMachine: (op, id, force) => machines.delete(op, id, force),
  };
}
