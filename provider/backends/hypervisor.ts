/** Virtual machines and their state disks. */
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

export interface IntegrityFacts {
  secureBoot: boolean;
  lockdown: string;
  rootHash: string;
  rootHashSignatureVerified: boolean;
  verityMount: string;
  ipePolicy: string;
  ipeEnforcing: boolean;
  selinux: "enforcing" | "permissive" | "disabled";
  kernelVersion: string;
  /** audit, enforce, jit or strict; empty when the host's command line names none. */
  mode: string;
  /** Layers of sealed images that are open as verity devices. */
  sealedLayers: number;
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
}

export interface Hypervisor {
  createStateDisk(op: Operation, spec: StateDiskSpec): Promise<StateDiskObserved>;
  readStateDisk(id: string): Promise<StateDiskObserved | undefined>;
  /** Grows the disk; the machine may run. */
  resizeStateDisk(op: Operation, id: string, sizeGiB: number): Promise<StateDiskObserved>;
  deleteStateDisk(op: Operation, id: string): Promise<void>;
  /** Returns when the agent reports that it is ready. */
  createVirtualMachine(op: Operation, spec: VirtualMachineSpec): Promise<VirtualMachineObserved>;
  readVirtualMachine(id: string): Promise<VirtualMachineObserved | undefined>;
  /** Starts a stopped machine and applies changes, with a restart when a change needs one. */
  updateVirtualMachine(op: Operation, id: string, spec: VirtualMachineSpec): Promise<VirtualMachineObserved>;
  /**
   * Deletes the machine.
   *
   * @throws UnreachableHostError when its host cannot be reached, unless `force`
   */
  deleteVirtualMachine(op: Operation, id: string, force: boolean): Promise<void>;
}
