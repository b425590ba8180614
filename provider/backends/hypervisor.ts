/** Virtual machines and their state disks. */
import type { ExpectedIntegrity, IntegrityFacts } from "./integrity.js";
import type { Operation } from "./operation.js";
import type { KeyPairFiles } from "./signing.js";

export interface StateDiskSpec {
  sizeGiB: number;
}
export interface StateDiskObserved extends StateDiskSpec {
  id: string;
  /** File on the hypervisor's machine. */
  path: string;
  /** Id of the virtual machine that uses it, if any. */
  attachedTo?: string;
}

export interface PublishedPort {
  /** Port in the guest. */
  port: number;
  protocol: "TCP" | "UDP";
  /** Address on the hypervisor's machine. */
  hostAddress: string;
  /** 0 chooses a free port, which is kept for the life of the machine. */
  hostPort: number;
}

export interface VirtualMachineSpec {
  imageDigest: string;
  stateDiskId: string;
  cpus: number;
  memoryMiB: number;
  publishedPorts: PublishedPort[];
  certificateAuthority: KeyPairFiles;
  clientIdentity: KeyPairFiles;
  acceleration: "auto" | "kvm" | "tcg";
  /**
   * template: a machine whose disk has no host yet resumes a template of its image and size, and does not boot.
   * Default: none.
   */
  snapshot?: "none" | "template";
  powerState: "running" | "stopped";
}

export interface HostConnection {
  hostId: string;
  /** https://address:port of the agent. */
  endpoint: string;
  /** PEM. */
  certificateAuthority: string;
  clientCertificateFile: string;
  clientKeyFile: string;
  /** Address under which the host reaches the loopback of the machine that runs Pulumi. */
  loopbackAddress?: string;
  publishedPorts: { port: number; protocol: string; address: string }[];
}

export interface VirtualMachineObserved extends VirtualMachineSpec {
  id: string;
  /** The accelerator in use. */
  accelerator: "kvm" | "tcg";
  /** File with everything that the serial console has shown since the machine was created. */
  serialLog: string;
  bootSeconds?: number;
  /** Absent until the host has enrolled. */
  connection?: HostConnection;
  /** Absent when the machine is stopped. */
  integrity?: IntegrityFacts;
  /** What the host of this image has to report. Absent when the image is not in the store any more. */
  expectedIntegrity?: ExpectedIntegrity;
}

export interface Hypervisor {
  createStateDisk(op: Operation, spec: StateDiskSpec): Promise<StateDiskObserved>;
  readStateDisk(id: string): Promise<StateDiskObserved | undefined>;
  /** Grows the disk; the machine may run. */
  resizeStateDisk(op: Operation, id: string, sizeGiB: number): Promise<StateDiskObserved>;
  deleteStateDisk(op: Operation, id: string): Promise<void>;
  /**
   * Returns when the agent reports that it is ready. The host may still differ from its image: `integrity` and
   * `expectedIntegrity` of the result say in what.
   */
  createVirtualMachine(op: Operation, spec: VirtualMachineSpec): Promise<VirtualMachineObserved>;
  readVirtualMachine(id: string): Promise<VirtualMachineObserved | undefined>;
  /**
   * Starts a stopped machine and applies changes, with a restart when a change needs one, or when the host differs from
   * its image: it starts from the image's disk and firmware variables alone then.
   */
  updateVirtualMachine(op: Operation, id: string, spec: VirtualMachineSpec): Promise<VirtualMachineObserved>;
  /**
   * Deletes the machine.
   *
   * @throws UnreachableHostError when its host cannot be reached, unless `force`
   */
  deleteVirtualMachine(op: Operation, id: string, force: boolean): Promise<void>;
}
