/** What the markers of machines and disks record. */
import { join } from "node:path";
import type { HostedThing, PublishedPort, StateDiskSpec, VirtualMachineSpec } from "../../backends/index.js";
import { MarkerStore, type Marker } from "../../system/marker.js";
import type { NamedProcess } from "../../system/process.js";
import type { Accelerator } from "./qemu/accelerator.js";

export interface StateDiskDetails {
  /** Set once the file exists: from then on its absence means that the disk is lost. */
  created: boolean;
  /** The host whose identity lies on this disk, since its first contact. */
  hostId?: string;
  /** SHA-256 of the host's SubjectPublicKeyInfo, hex. Markers of older versions lack it until the next contact. */
  hostKeyDigest?: string;
  /** What has to be removed from the host at its next start. */
  removals?: HostedThing[];
}

/** What a QEMU was started with. */
export interface StartedWith {
  imageDigest: string;
  stateDiskId: string;
  cpus: number;
  memoryMiB: number;
  accelerator: Accelerator;
}

export interface VirtualMachineDetails {
  /** Port of this machine's loopback that leads to the agent. */
  agentPort?: number;
  /** Published ports with the host ports that were chosen. */
  ports: PublishedPort[];
  started?: StartedWith;
  /** Started from a template and not a host of its own yet: such a machine can only be started again. */
  unreleased?: boolean;
  /** Image whose firmware variables were copied. */
  variablesOf?: string;
  hostId?: string;
  /** Of the last start, until the agent was ready. */
  bootSeconds?: number;
  /** The QEMU whose host became ready; another QEMU is still booting. */
  booted?: NamedProcess;
}

export type StateDiskMarker = Marker<StateDiskSpec, StateDiskDetails>;
export type VirtualMachineMarker = Marker<VirtualMachineSpec, VirtualMachineDetails>;

/** The two stores of a state directory. */
export class HypervisorMarkers {
  readonly disks: MarkerStore<StateDiskSpec, StateDiskDetails>;
  readonly machines: MarkerStore<VirtualMachineSpec, VirtualMachineDetails>;

  constructor(readonly stateDirectory: string) {
    this.disks = new MarkerStore(join(stateDirectory, "state-disks"), "disk");
    this.machines = new MarkerStore(join(stateDirectory, "virtual-machines"), "vm");
  }

  diskFile(id: string): string {
    return join(this.disks.folder(id), "disk.qcow2");
  }

  /** The machine that has a disk attached, running or not. */
  async userOfDisk(id: string): Promise<VirtualMachineMarker | undefined> {
    return (await this.machines.list()).find((machine) => machine.spec.stateDiskId === id);
  }
}
