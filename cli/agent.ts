/** The agent of a host, called as the operator. It uses the provider's transport. */
import { createClient, type Client } from "@connectrpc/connect";
import { GroupService, HostService } from "../hosts/api/gen/palisade/agent/v1/agent_pb.js";
import { NetworkService } from "../hosts/api/gen/palisade/agent/v1/network_pb.js";
import { translate } from "../provider/local/agent-client/errors.js";
import { openTransport } from "../provider/local/agent-client/transport.js";
import type { Connection } from "./stack-state.js";

/** The services of one host. */
export interface Agent {
  host: Client<typeof HostService>;
  groups: Client<typeof GroupService>;
  networks: Client<typeof NetworkService>;
}

/**
 * Calls a host's agent.
 *
 * @throws UnreachableHostError, ForeignHostError or the agent's refusal.
 */
export async function withAgent<T>(connection: Connection, work: (agent: Agent) => Promise<T>): Promise<T> {
  const { transport, close } = openTransport(connection);
  try {
    return await work({
      host: createClient(HostService, transport),
      groups: createClient(GroupService, transport),
      networks: createClient(NetworkService, transport),
    });
  } catch (error) {
    throw translate(error, `host ${connection.hostId} at ${connection.endpoint}`);
  } finally {
    close();
  }
}
