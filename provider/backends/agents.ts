/** The agents of hosts, and what is known of hosts that do not answer. */
import type * as agentv1 from "../../hosts/api/gen/palisade/agent/v1/agent_pb.js";
import type * as images from "../../hosts/api/gen/palisade/agent/v1/images_pb.js";
import type * as network from "../../hosts/api/gen/palisade/agent/v1/network_pb.js";
import type { HostConnection } from "./hypervisor.js";

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
