/** What resources that live on a host have in common. */
import {
  removeHosted,
  UnreachableHostError,
  type AgentClient,
  type Backends,
  type HostConnection,
  type HostedThing,
  type Operation,
} from "../backends/index.js";
import { sleep } from "../../shared/sleep.js";
import type { Context, Properties } from "../protocol/resource.js";
import { decodeInputs, storedInputs } from "../schema/decode.js";
import type { Inputs } from "../schema/inputs.js";
import { anyUnknown, isRecord } from "../schema/schema.js";

/** Tokens of the resources that live on a host. */
type HostedType =
  | "palisade:index:GroupDeployment"
  | "palisade:index:HostIntegrity"
  | "palisade:index:ImagePolicy"
  | "palisade:index:NetworkPolicy";

export const isUnreachable = (error: unknown): boolean => (error as Error).name === "UnreachableHostError";

/**
 * How the host of a resource that is read is reached.
 *
 * @param inputs undefined at an import: then this machine's hosts are searched
 * @throws Error when this machine knows no such host
 */
export async function connectionOf(
  backends: Backends,
  type: HostedType,
  hostId: string,
  inputs: Properties | undefined,
  id: string,
): Promise<HostConnection> {
  const connection = storedInputs(type, inputs).host ?? (await backends.agents.find(hostId));
  if (!connection) throw new Error(`${id}: this machine knows no host ${hostId}; import the host's machine first`);
  return connection;
}

/** How often a host that boots is asked whether it is ready, in milliseconds. */
const bootPollInterval = 500;

/** Calls `work` with the agent of a host. A host that is booting is waited for. */
export async function withHost<T>(
  { backends }: Context,
  connection: HostConnection,
  op: Operation,
  work: (agent: AgentClient) => Promise<T>,
): Promise<T> {
  const agent = backends.agents.connect(connection);
  try {
    await untilBooted(backends, agent, connection.hostId, op);
    return await work(agent);
  } finally {
    agent.close();
  }
}

/**
 * Returns when the host is ready, and when it is not booting: the call that follows then finds what is wrong.
 *
 * @throws UnreachableHostError when the operation's time is over while the host is still booting.
 */
async function untilBooted(backends: Backends, agent: AgentClient, hostId: string, op: Operation): Promise<void> {
  for (const began = Date.now(); ;) {
    try {
      if ((await agent.getHost()).ready) return;
    } catch (error) {
      // A host that answers is not booting.
      if (!isUnreachable(error)) return;
    }
    const boot = await backends.agents.boot(hostId);
    if (!boot || Date.now() - began >= boot.patience) return;
    const progress = `${boot.phase} (${boot.seconds} s)`;
    if (Date.now() >= op.deadline) {
      throw new UnreachableHostError(`host ${hostId}: still booting when the time was over: ${progress}`);
    }
    op.status(`waiting for the host, which is booting: ${progress}`);
    await sleep(bootPollInterval, op.signal);
  }
}

/**
 * Removes a thing from its host. A host that is proved to be stopped runs nothing, and removes it when it starts again.
 */
export async function removeFromHost(
  { backends }: Context,
  host: HostConnection,
  thing: HostedThing,
  op: Operation,
): Promise<void> {
  try {
    await withHost({ backends }, host, op, (agent) => removeHosted(agent, thing));
  } catch (error) {
    if (!isUnreachable(error) || !(await backends.agents.removeAtStart(host.hostId, thing))) throw error;
    op.log("info", `the host is stopped; it loses the ${`${thing.kind} ${thing.name}`.trim()} when it starts again`);
  }
}

/**
 * The host of a resource that is deleted: from its inputs, or from its outputs when the inputs have none.
 *
 * @throws Error when neither has one
 */
export function storedHost(type: HostedType, inputs: Properties, outputs: Properties): HostConnection {
  const { host } = storedInputs(type, isRecord(inputs["host"]) ? inputs : outputs);
  if (!host) throw new Error("host: the state holds no connection to the host; refresh the resource first");
  return host;
}

/**
 * In a preview in which all inputs are known, calls `work` with the agent of the host. A host that does not answer gets
 * a warning: it can answer by the time of the update.
 */
export async function tryOnHost<T extends HostedType>(
  context: Context,
  type: T,
  inputs: Properties,
  op: Operation,
  work: (agent: AgentClient, inputs: Inputs[T]) => Promise<void>,
): Promise<void> {
  if (anyUnknown(inputs)) return;
  const known = decodeInputs(type, inputs);
  try {
    await withHost(context, known.host, op, (agent) => work(agent, known));
  } catch (error) {
    if (!isUnreachable(error)) throw error;
    op.log(
      "warning",
      `the host does not answer now, so nothing could be checked against it: ${(error as Error).message}`,
    );
  }
}
