/** The agents of hosts, and what this machine knows about hosts that do not answer. */
import type * as agentv1 from "../../hosts/api/gen/palisade/agent/v1/agent_pb.js";
import type * as images from "../../hosts/api/gen/palisade/agent/v1/images_pb.js";
import type * as network from "../../hosts/api/gen/palisade/agent/v1/network_pb.js";
import type { HostConnection } from "./hypervisor.js";

/** A connection to one host's agent. */
export interface AgentClient {
  getHost(): Promise<agentv1.GetHostResponse>;
  getIntegrity(): Promise<agentv1.GetIntegrityResponse>;
  /**
   * Declares a group.
   *
   * @param dryRun only asks whether the host would accept it
   * @param expectedGeneration the host refuses when the group has another generation. Default: any
   */
  applyGroup(spec: agentv1.GroupSpec, dryRun?: boolean, expectedGeneration?: bigint): Promise<agentv1.Group>;
  /** undefined when the host answers that there is no such group. */
  getGroup(name: string): Promise<agentv1.Group | undefined>;
  deleteGroup(name: string): Promise<void>;
  watchGroup(name: string, signal: AbortSignal): AsyncIterable<agentv1.Group>;
  getLogs(group: string, container: string, tailLines: number): Promise<string>;
  /**
   * Declares a policy. Returns which images on the host it refuses.
   *
   * @param dryRun only asks whether the host would accept it
   */
  applyImagePolicy(policy: images.ImagePolicy, dryRun?: boolean): Promise<images.ApplyImagePolicyResponse>;
  /** undefined when the host answers that there is no such policy. */
  getImagePolicy(name: string): Promise<images.ImagePolicy | undefined>;
  deleteImagePolicy(name: string): Promise<void>;
  /**
   * Puts a compiled policy in force.
   *
   * @param compiled the policy as JSON
   * @param hash the hash in the policy
   * @param dryRun only asks whether the host would accept it
   */
  applyNetworkPolicy(compiled: string, hash: string, dryRun?: boolean): Promise<network.ApplyPolicyResponse>;
  /** The policy as JSON; undefined when the host answers that none was declared. */
  getNetworkPolicy(): Promise<string | undefined>;
  deleteNetworkPolicy(): Promise<void>;
  getNetwork(): Promise<network.GetNetworkResponse>;
  /** Makes the kernel's maps equal to the declared policy. Returns the differences that it found. */
  repairNetwork(): Promise<string[]>;
  /** Stops the reconciliation of all groups for a time, at most an hour. 0 seconds resume it. */
  suspendReconcile(seconds: number): Promise<void>;
  close(): void;
}

export interface Agents {
  connect(connection: HostConnection): AgentClient;
  /** The connection to a host of this machine, for imports; undefined when this machine does not know the host. */
  find(hostId: string): Promise<HostConnection | undefined>;
  /**
   * True when nothing runs on the host for certain: it is a virtual machine of this machine that is proved to be
   * stopped, or its state disk is here and no machine uses it.
   */
  isStopped(hostId: string): Promise<boolean>;
  /**
   * How far the boot of a host of this machine is. undefined for a host that is not booting, for one that has shown no
   * progress for too long, and for every host elsewhere.
   */
  boot(hostId: string): Promise<BootProgress | undefined>;
  /**
   * Records that a thing is to be removed from a host that is proved to be stopped. It is on the host's disk, so it is
   * removed at the next start of any machine with that disk. False for every other host, and then nothing is recorded.
   */
  removeAtStart(hostId: string, thing: HostedThing): Promise<boolean>;
}

/** A boot that is in progress. */
export interface BootProgress {
  /** The phase that the console shows, e.g. `kernel`. */
  phase: string;
  /** Time since the machine was started. */
  seconds: number;
  /** How long a caller should wait for the host, in milliseconds from its first look at the boot. */
  patience: number;
}

/** Something that was declared to a host and is on its state disk. A host has one network policy, which has no name. */
export interface HostedThing {
  kind: "group" | "image policy" | "network policy";
  name: string;
}

/** Removes a thing from its host. It is no error when the host does not have it. */
export async function removeHosted(agent: AgentClient, { kind, name }: HostedThing): Promise<void> {
  if (kind === "group") await agent.deleteGroup(name);
  else if (kind === "image policy") await agent.deleteImagePolicy(name);
  else await agent.deleteNetworkPolicy();
}
