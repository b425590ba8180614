/** What resources that live on a host have in common. */
import {
  removeHosted,
  type AgentClient,
  type Backends,
  type HostConnection,
  type HostedThing,
  type Operation,
} from "../backends.js";
import type { Context, Properties } from "../resource.js";
import { anyUnknown } from "./rules.js";
import { isRecord } from "./schema.js";

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

export async function withAgent<T>(
  { backends }: Context,
  inputs: Properties,
  work: (agent: AgentClient) => Promise<T>,
): Promise<T> {
  const agent = backends.agents.connect(hostOf(inputs));
  try {
    return await work(agent);
  } finally {
    agent.close();
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
    await withAgent({ backends }, inputs, (agent) => removeHosted(agent, thing));
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
    await withAgent(context, inputs, work);
  } catch (error) {
    if (!isUnreachable(error)) throw error;
    op.log(
      "warning",
      `the host does not answer now, so nothing could be checked against it: ${(error as Error).message}`,
    );
  }
}
