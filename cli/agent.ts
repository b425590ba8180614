/** The agent of a host, for the operator. */
import { translate } from "../provider/local/agent-client/errors.js";
import { dialHost, type HostServices } from "../provider/local/agent-client/transport.js";
import type { Connection } from "./stack-state.js";

/** The services of one host. */
export type Agent = HostServices;

/**
 * Calls a host's agent.
 *
 * @throws UnreachableHostError, ForeignHostError or the agent's refusal.
 */
export async function withAgent<T>(connection: Connection, work: (agent: Agent) => Promise<T>): Promise<T> {
  const { services, close } = dialHost(connection);
  try {
    return await work(services);
  } catch (error) {
    throw translate(error, `host ${connection.hostId} at ${connection.endpoint}`);
  } finally {
    close();
  }
}
