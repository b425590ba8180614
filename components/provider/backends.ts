/**
 * What the provider's resources need from the machine they run on. Resources know the engine and these interfaces and
 * nothing else: the real implementations (QEMU, docker-registry, mkosi, the host's agent) and the fault-injecting ones of the
 * engine tests are interchangeable.
 *
 * Contract shared by every method that makes something:
 * - It is idempotent by `operation.owner`: when an ownership marker of the same owner exists, what was half made by an
 *   earlier, killed call is adopted and finished. Never is a second thing made for one owner.
 * - The marker is written before anything is started or allocated.
 * - What outlives the call (QEMU, swtpm, a registry) runs in its own session, never as a child that dies with the plugin.
 * - `operation.signal` ends it early with an AbortError; what was made so far stays, marked, for the next call.
 * - `read*` returns what is observed. `undefined` means proven absence; anything unknowable is thrown.
 */
import type * as agentv1 from "../../hosts/api/gen/palisade/agent/v1/agent_pb.js";

/** Who a thing on this machine belongs to. */
export interface Owner {
  /** URL of the state backend, e.g. `file:///…`; empty when the engine did not tell. */
  backend: string;
  project: string;
  stack: string;
  urn: string;
}

/** One CRUD call in flight. */
export interface Operation {
  owner: Owner;
  signal: AbortSignal;
  /** Milliseconds since the epoch; from the engine's customTimeouts or the resource's default. */
  deadline: number;
  /** A line that stays in the update's output. */
  log(severity: "debug" | "info" | "warning" | "error", message: string): void;
  /** A line that replaces the last one on the resource's row while the update runs. */
  status(message: string): void;
  /**
   * Named points at which tests kill or fail the call: `marker-written`, `disk-created`, `tpm-started`, `qemu-started`,
   * `booted`, `enrolled`, `registry-started`, `image-built`, `image-pushed`, `group-applied`, `group-ready`.
   * Does nothing in production.
   */
  checkpoint(name: string): Promise<void>;
}

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
  /** 0 asks for a free port; it is then kept for the life of the machine. */
  hostPort: number;
}

/** A key pair by reference: the files never enter the state. */
export interface KeyPairFiles {
  certificateFile: string;
  keyFile: string;
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
  publishedPorts: { port: number; protocol: "TCP" | "UDP"; address: string }[];
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
}

export interface VirtualMachineObserved extends VirtualMachineSpec {
  id: string;
  /** What runs: the accelerator in use. */
  accelerator: "kvm" | "tcg";
  /** File that holds the serial console since the machine was made. */
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
  /** Returns once the agent says that it is ready. */
  createVirtualMachine(op: Operation, spec: VirtualMachineSpec): Promise<VirtualMachineObserved>;
  readVirtualMachine(id: string): Promise<VirtualMachineObserved | undefined>;
  /** Starts a stopped machine, changes what can be changed; restarts it where it must. */
  updateVirtualMachine(op: Operation, id: string, spec: VirtualMachineSpec): Promise<VirtualMachineObserved>;
  /** An unreachable host is refused unless `force`. */
  deleteVirtualMachine(op: Operation, id: string, force: boolean): Promise<void>;
}

export interface RegistrySpec {
  /** 0 asks for a free port. */
  port: number;
}
export interface RegistryObserved extends RegistrySpec {
  id: string;
  /** host:port as in image references. */
  server: string;
  username: string;
  password: string;
  /** PEM of the CA that signed the registry's certificate. */
  ca: string;
  powerState: "running" | "stopped";
}
export interface RegistryService {
  createRegistry(op: Operation, spec: RegistrySpec): Promise<RegistryObserved>;
  readRegistry(id: string): Promise<RegistryObserved | undefined>;
  updateRegistry(op: Operation, id: string, spec: RegistrySpec): Promise<RegistryObserved>;
  deleteRegistry(op: Operation, id: string): Promise<void>;
}

export interface RegistryAccess {
  server: string;
  username?: string;
  password?: string;
  ca?: string;
}

export interface DebianImageSpec {
  registry: RegistryAccess;
  repository: string;
  tag: string;
  suite: string;
  packages: string[];
  entrypoint: string[];
  command: string[];
  environment: Record<string, string>;
  workingDirectory: string;
  /** Files written into the image after the packages: absolute path → content. */
  files: Record<string, string>;
}
export interface DebianImageObserved {
  /** sha256:<hex> of the manifest in the registry. */
  digest: string;
  /** <server>/<repository>@<digest> */
  reference: string;
  /** What the image was made from, as recorded in the image itself; absent for an image that is not ours. */
  madeFrom?: Omit<DebianImageSpec, "registry"> & { inputsHash: string };
}
export interface ImageBuilder {
  /** Builds (or takes from the cache by content) and pushes. */
  buildDebianImage(op: Operation, spec: DebianImageSpec): Promise<DebianImageObserved>;
  /**
   * Asks the registry; undefined when it says that the digest is not there. Without a user name, the credentials of a registry
   * of this machine with that server are used, for imports.
   */
  readImage(registry: RegistryAccess, repository: string, digest: string): Promise<DebianImageObserved | undefined>;
  /** A short stable string over everything that decides the image's content but is not in the spec. */
  inputsHash(spec: DebianImageSpec): Promise<string>;
}

export interface HostImageBuildSpec {
  mode: "audit";
  keysDirectory: string;
}
export interface HostImageObserved {
  /** sha256:<hex> of the disk image. */
  digest: string;
  /** Folder in the image store. */
  directory: string;
  rootHash: string;
  ipePolicy: string;
  mode: "audit";
  /** SHA-256 fingerprints, hex, of the certificates in the firmware's db. */
  trustedCertificates: string[];
  /** What it was built from on this machine; absent for an image that came from elsewhere. */
  builtFrom?: { build: HostImageBuildSpec; inputsHash: string };
}
export interface HostImageStore {
  /** Hash over every input of the build: definition, binaries, certificates, package sources. Reads files only. */
  inputsHash(spec: HostImageBuildSpec): Promise<string>;
  /** Builds, or takes what was built from the same inputs. */
  build(op: Operation, spec: HostImageBuildSpec): Promise<HostImageObserved>;
  read(digest: string): Promise<HostImageObserved | undefined>;
  /** What was built from inputs of this hash, while it is still here; lets a preview tell the digest. */
  findBuilt(inputsHash: string): Promise<HostImageObserved | undefined>;
  /**
   * Gives up the owner's claim on an image. Images are shared by stacks: it leaves the store with the last claim, if no machine
   * uses it; what was built stays in the cache.
   */
  release(op: Operation, digest: string): Promise<void>;
}

/** A connection to one host's agent. */
export interface AgentClient {
  getHost(): Promise<agentv1.GetHostResponse>;
  getIntegrity(): Promise<agentv1.GetIntegrityResponse>;
  applyGroup(spec: agentv1.GroupSpec, dryRun?: boolean): Promise<agentv1.Group>;
  /** undefined: the host itself says that there is no such group. */
  getGroup(name: string): Promise<agentv1.Group | undefined>;
  deleteGroup(name: string): Promise<void>;
  watchGroup(name: string, signal: AbortSignal): AsyncIterable<agentv1.Group>;
  getLogs(group: string, container: string, tailLines: number): Promise<string>;
  close(): void;
}

/** The host cannot be reached: no answer, connection refused, time-out. Not a proof of anything. */
export class UnreachableHostError extends Error {
  override readonly name = "UnreachableHostError";
}
/** Something answered, and it is not the host that was asked for. */
export class ForeignHostError extends Error {
  override readonly name = "ForeignHostError";
}

/** The host refuses a spec: what is wrong with which field, by path from the group's spec in JSON names. */
export class InvalidFieldsError extends Error {
  override readonly name = "InvalidFieldsError";
  constructor(
    message: string,
    readonly violations: { path: string; reason: string }[],
  ) {
    super(message);
  }
}

export interface Agents {
  connect(connection: HostConnection): AgentClient;
  /** Finds the connection of a host known to this machine, for imports; undefined when none is known. */
  find(hostId: string): Promise<HostConnection | undefined>;
  /** True when the host is a virtual machine of this machine and is proved to be stopped; nothing runs on it then. */
  isStopped(hostId: string): Promise<boolean>;
}

/** Everything the provider's resources stand on. */
export interface Backends {
  hypervisor(uri: string): Hypervisor;
  registries: RegistryService;
  images: ImageBuilder;
  hostImages: HostImageStore;
  agents: Agents;
}
