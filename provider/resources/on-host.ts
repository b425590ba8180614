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
import { anyUnknown } from "./rules.js";
import { isRecord } from "../schema/schema.js";

export const hostOf = (inputs: Properties): HostConnection => inputs["host"] as unknown as HostConnection;

export const isUnreachable = (error: unknown): boolean => (error as Error).name === "UnreachableHostError";

/**
 * How the host of a resource that is read is reached.
 *
 * @param inputs undefined at an import: then a host of this machine is looked for
 * @throws Error when this machine knows no such host
 */
export async function connectionOf(
  backends: Backends,
  hostId: string,
  inputs: Properties | undefined,
  id: string,
): Promise<HostConnection> {
  const connection = inputs && isRecord(inputs["host"]) ? hostOf(inputs) : await backends.agents.find(hostId);
  if (!connection) throw new Error(`${id}: this machine knows no host ${hostId}; import the host's machine first`);
  return connection;
}

/** How often a host that boots is asked, in milliseconds. */
const bootPollInterval = 500;

/** Works with the agent of a host; one that boots just now is waited for. */
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

/** The same with the host that the inputs name. */
export const withAgent = <T>(
  context: Context,
  inputs: Properties,
  op: Operation,
  work: (agent: AgentClient) => Promise<T>,
): Promise<T> => withHost(context, hostOf(inputs), op, work);

/**
 * Returns when the host is ready, or does not boot: what is wrong then is for the call that follows to find out.
 *
 * @throws UnreachableHostError when the operation's time is over while it still boots.
 */
async function untilBooted(backends: Backends, agent: AgentClient, hostId: string, op: Operation): Promise<void> {
  for (const began = Date.now(); ;) {
    try {
      if ((await agent.getHost()).ready) return;
    } catch (error) {
      // What answers does not boot.
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

/** Removes a thing from its host. One that is proved to be stopped loses it when it starts again: until then nothing of it runs. */
export async function removeFromHost(
  { backends }: Context,
  inputs: Properties,
  thing: HostedThing,
  op: Operation,
): Promise<void> {
  try {
    await withAgent({ backends }, inputs, op, (agent) => removeHosted(agent, thing));
  } catch (error) {
    if (!isUnreachable(error) || !(await backends.agents.removeAtStart(hostOf(inputs).hostId, thing))) throw error;
    op.log("info", `the host is stopped; it loses the ${`${thing.kind} ${thing.name}`.trim()} when it starts again`);
  }
}

/** In preview: asks a host that is known already, once everything is; one that does not answer is no error yet. */
export async function tryOnHost(
  context: Context,
  inputs: Properties,
  op: Operation,
  work: (agent: AgentClient) => Promise<void>,
): Promise<void> {
  if (anyUnknown(inputs)) return;
  try {
    await withAgent(context, inputs, op, work);
  } catch (error) {
    if (!isUnreachable(error)) throw error;
    op.log(
      "warning",
      `the host does not answer now, so nothing could be checked against it: ${(error as Error).message}`,
    );
  }
}
