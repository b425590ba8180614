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
import type * as images from "../../hosts/api/gen/palisade/agent/v1/images_pb.js";
import type * as network from "../../hosts/api/gen/palisade/agent/v1/network_pb.js";

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
   * `booted`, `enrolled`, `registry-started`, `image-built`, `image-scanned`, `image-patched`, `image-pushed`, `layer-sealed`, `image-signed`, `seal-published`, `channel-moved`,
   * `group-applied`, `group-ready`, `image-policy-applied`.
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
  /** template: a machine whose disk has no host yet resumes a template of its image and size instead of booting. Default: none. */
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
  /** audit, enforce, jit or strict; empty when the host's command line names none. */
  mode: string;
  /** Layers of sealed images that are open as verity devices. */
  sealedLayers: number;
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
  /** The registry of this machine with that server, `<address>:<port>`; undefined when it is none of this machine's. */
  findRegistry(server: string): Promise<RegistryObserved | undefined>;
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
  /** Default: true; else the packages are those of the suite's last point release. */
  securityUpdates?: boolean;
  /** Default: false; else the image holds apt and this machine's package sources of the suite. */
  packageSources?: boolean;
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
}
/** What an image was made from, as recorded in the image itself. */
export type MadeFrom = Omit<DebianImageSpec, "registry"> & { inputsHash: string };
export interface ImageBuilder {
  /** Builds (or takes from the cache by content) and pushes. */
  buildDebianImage(op: Operation, spec: DebianImageSpec): Promise<DebianImageObserved>;
  /**
   * Asks the registry; undefined when it says that the digest is not there. Without a user name, the credentials of a registry
   * of this machine with that server are used, for imports.
   */
  readImage(registry: RegistryAccess, repository: string, digest: string): Promise<DebianImageObserved | undefined>;
  /** For an image that is there, with credentials as for `readImage`; undefined for one that is not ours. */
  readMadeFrom(registry: RegistryAccess, repository: string, digest: string): Promise<MadeFrom | undefined>;
  /** A short stable string over everything that decides the image's content but is not in the spec. */
  inputsHash(spec: DebianImageSpec): Promise<string>;
}

export interface HostImageBuildSpec {
  mode: "enforce" | "audit" | "jit";
  keysDirectory: string;
}
export interface HostImageObserved {
  /** sha256:<hex> of the disk image. */
  digest: string;
  /** Folder in the image store. */
  directory: string;
  rootHash: string;
  ipePolicy: string;
  /** Of the kernel image that boots; with `-debug` or `-probe` behind it for an image that is no product. */
  mode: string;
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
  /** @param expectedGeneration refused when the group has another one by now. Default: whatever it is. */
  applyGroup(spec: agentv1.GroupSpec, dryRun?: boolean, expectedGeneration?: bigint): Promise<agentv1.Group>;
  /** undefined: the host itself says that there is no such group. */
  getGroup(name: string): Promise<agentv1.Group | undefined>;
  deleteGroup(name: string): Promise<void>;
  watchGroup(name: string, signal: AbortSignal): AsyncIterable<agentv1.Group>;
  getLogs(group: string, container: string, tailLines: number): Promise<string>;
  /** Declares a policy, or only asks whether it would be taken; tells which images on the host it refuses. */
  applyImagePolicy(policy: images.ImagePolicy, dryRun?: boolean): Promise<images.ApplyImagePolicyResponse>;
  /** undefined: the host itself says that there is no such policy. */
  getImagePolicy(name: string): Promise<images.ImagePolicy | undefined>;
  deleteImagePolicy(name: string): Promise<void>;
  /** Puts a compiled policy in force, or only asks whether it would be taken. @param compiled JSON @param hash its own */
  applyNetworkPolicy(compiled: string, hash: string, dryRun?: boolean): Promise<network.ApplyPolicyResponse>;
  /** The policy as JSON; undefined: the host itself says that none was declared. */
  getNetworkPolicy(): Promise<string | undefined>;
  deleteNetworkPolicy(): Promise<void>;
  getNetwork(): Promise<network.GetNetworkResponse>;
  /** Restores what was declared; tells what was found. */
  repairNetwork(): Promise<string[]>;
  /** Leaves all groups as they are for a while, whatever happens to them; 0 seconds resume. At most an hour. */
  suspendReconcile(seconds: number): Promise<void>;
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
  /**
   * True when the host is a virtual machine of this machine and is proved to be stopped, or its state disk is here and has no machine;
   * nothing runs on it then.
   */
  isStopped(hostId: string): Promise<boolean>;
  /**
   * What a host of this machine that boots just now is at; undefined for one that does not boot, or has not shown a sign of life for so
   * long that it will not come, and for every host elsewhere.
   */
  boot(hostId: string): Promise<BootProgress | undefined>;
  /**
   * Notes what a host that is proved to be stopped has to lose: its disk keeps it, so it is removed at the next start, whichever machine
   * that is. False, and nothing is noted, for every other host.
   */
  removeAtStart(hostId: string, thing: HostedThing): Promise<boolean>;
}

/** A boot that goes on. */
export interface BootProgress {
  /** What the console shows, e.g. `kernel`. */
  phase: string;
  /** Since the machine was started. */
  seconds: number;
  /** How long it may be waited for, in milliseconds from when it was first seen. */
  patience: number;
}

/** What was declared to a host and lies on its state disk. A host has one network policy, without a name. */
export interface HostedThing {
  kind: "group" | "image policy" | "network policy";
  name: string;
}

/** Removes a thing from its host; one that is not there is gone already. */
export async function removeHosted(agent: AgentClient, { kind, name }: HostedThing): Promise<void> {
  if (kind === "group") await agent.deleteGroup(name);
  else if (kind === "image policy") await agent.deleteImagePolicy(name);
  else await agent.deleteNetworkPolicy();
}

/** A key that signs, by reference: exactly one of `keyFile` and `pkcs11Uri`. Nothing secret enters the state. */
export interface SigningKey {
  /** PEM. */
  certificateFile: string;
  /** PEM, PKCS#8, not encrypted. */
  keyFile?: string;
  /** RFC 7512; the PIN is in the file that `pin-source` names. */
  pkcs11Uri?: string;
}
export interface SealSpec {
  registry: RegistryAccess;
  repository: string;
  digest: string;
  /** Signs the layers' root hashes, for the kernel. */
  layerSigner: SigningKey;
  /** Signs the seal manifest, for hosts. */
  sealSigner: SigningKey;
  /** Signs the image in cosign's format; absent: it is not signed. */
  imageSigner?: SigningKey;
}
export interface SealObserved {
  digest: string;
  /** <server>/<repository>@<digest> */
  reference: string;
  /** sha256:<hex> of the seal's manifest in the registry. */
  sealDigest: string;
  /** Of the layers, bottom first, hex. */
  rootHashes: string[];
  /** SHA-256 of the layer signer's certificate in DER, hex. */
  layerKey: string;
  /** SHA-256 of the seal signer's public key (SubjectPublicKeyInfo in DER), hex. */
  sealKeyId: string;
  /** Layers that had been sealed before. */
  reusedLayers: number;
}
/** A seal that was found, with the signers that an import records. */
export interface SealFound extends SealObserved {
  /** Of the operator's keys; imageSigner only where the image itself is signed. Absent unless nothing was known before. */
  signers?: { layerSigner: SigningKey; sealSigner: SigningKey; imageSigner?: SigningKey };
}
export interface ImageSealer {
  /** Identities of the signers, from their certificates; reads files only. Throws a PropertyError for what cannot be read. */
  identify(keys: Pick<SealSpec, "layerSigner" | "sealSigner">): Promise<Pick<SealObserved, "layerKey" | "sealKeyId">>;
  /** Seals what is not sealed yet and publishes; the same for the same image and keys. */
  seal(op: Operation, spec: SealSpec): Promise<SealObserved>;
  /**
   * The seal of an image that the seal key has signed; undefined when the registry says that there is none. Credentials as for
   * `ImageBuilder.readImage`.
   *
   * @param known what was observed before: when it was made with another seal key, it counts as long as it is there.
   * @param sealCertificateFile default: the seal certificate of the operator's keys.
   */
  readSeal(
    registry: RegistryAccess,
    repository: string,
    digest: string,
    known?: SealObserved,
    sealCertificateFile?: string,
  ): Promise<SealFound | undefined>;
}

export interface PatchSpec {
  registry: RegistryAccess;
  repository: string;
  /** Of the original image. */
  digest: string;
  /** Tag that is set to the patched image, last; absent: none. */
  tag?: string;
  /** Folder of the vulnerability database. Default: the one that `palisade vulndb build` makes. */
  database?: string;
  /** Signs the OpenVEX attestation. */
  imageSigner: SigningKey;
}
export interface PatchObserved {
  /** Of the patched image; the original's when nothing in that is fixable. */
  digest: string;
  /** <server>/<repository>@<digest> */
  reference: string;
  /** Pairs of vulnerability and package that some version fixes: in the original, in `digest`. */
  fixableBefore: number;
  fixableAfter: number;
  /** What `digest` has, each as `<vulnerability> <package>`: what no version fixes. */
  remaining: string[];
  databaseDigest: string;
  /** ISO 8601. */
  scannedAt: string;
  /** <server>/<repository>@<digest> of the OpenVEX attestation; absent when nothing was patched. */
  vexReference?: string;
}
/** What a registry tells of a patched image. */
export interface PatchedFound {
  digest: string;
  /** <server>/<repository>@<digest> */
  reference: string;
  /** For an import: how it was made, when the operator's key has attested it. */
  made?: {
    /** Digest of the image it was patched from. */
    original: string;
    tag?: string;
    observed: PatchObserved;
    imageSigner: SigningKey;
    /** The channel into which that key has published it last, where it leads now, and the operator's keys for it. */
    channel?: { name: string; digest?: string; layerSigner: SigningKey; sealSigner: SigningKey };
  };
}
export interface ImagePatcher {
  /** Digest of a vulnerability database; reads small files only. Throws a PropertyError when there is none. */
  databaseDigest(directory?: string): Promise<string>;
  /** Throws a PropertyError that says what this machine lacks to patch, and how it is got. */
  demandTools(): Promise<void>;
  /**
   * Scans, and patches what is fixable, always from the original.
   *
   * @param previous digest of an earlier patch of the same original, which is kept while nothing in it is fixable.
   */
  patch(op: Operation, spec: PatchSpec, previous?: string): Promise<PatchObserved>;
  /**
   * undefined when the registry says that the digest is not there. Credentials as for `ImageBuilder.readImage`.
   *
   * @param isKnown whether how it was made need not be told.
   */
  readPatched(
    registry: RegistryAccess,
    repository: string,
    digest: string,
    isKnown: boolean,
  ): Promise<PatchedFound | undefined>;
  /** Ends what an interrupted patch has left running, and removes it. */
  endPatch(op: Operation, id: string): Promise<void>;
}

/** Tags that begin with it are channels: nothing else sets them. */
export const channelTagPrefix = "palisade-channel-";

export interface ChannelSpec {
  registry: RegistryAccess;
  repository: string;
  /** DNS label. */
  channel: string;
}
export interface ChannelPublication extends ChannelSpec {
  digest: string;
  /** Key of the seal that the image must have. */
  sealSigner: SigningKey;
  /** Key of the signature that the image must have; signs the publication. */
  imageSigner: SigningKey;
}
export interface ChannelTarget {
  /** What the channel leads to. */
  digest: string;
}
export interface Channels {
  /**
   * The digest that a channel leads to; undefined when the registry says that there is no such channel. Credentials as for
   * `ImageBuilder.readImage`.
   *
   * @param publicKey PEM: then the key must have published the digest into the channel, and not before a publication that this machine
   * has seen.
   */
  resolve(spec: ChannelSpec, publicKey?: string): Promise<string | undefined>;
  /**
   * Moves a channel to an image that is sealed and signed; does nothing when it is there.
   *
   * @param from where the channel is to be moved from: when it leads elsewhere by now, it stays. Default: anywhere.
   */
  publish(op: Operation, spec: ChannelPublication, from?: string): Promise<ChannelTarget>;
}

/** Everything the provider's resources stand on. */
export interface Backends {
  hypervisor(uri: string): Hypervisor;
  registries: RegistryService;
  images: ImageBuilder;
  sealer: ImageSealer;
  patcher: ImagePatcher;
  channels: Channels;
  hostImages: HostImageStore;
  agents: Agents;
}
