/** The agent of a host, for the operator. */
import path from "node:path";
import { translate } from "../provider/local/agent-client/errors.js";
import { dialHost, type HostServices } from "../provider/local/agent-client/transport.js";
import { keyPair } from "../shared/directories.js";
import type { Connection } from "./stack-state.js";

/** The services of one host. */
export type Agent = HostServices;

/** The folder of `palisade keys client` whose certificate is shown to hosts. Default: the one of the connection. */
export const clientVariable = "PALISADE_CLIENT";

function identified(connection: Connection): Connection {
  const folder = process.env[clientVariable];
  if (!folder) return connection;
  const { certificateFile, keyFile } = keyPair(path.resolve(folder), "client");
  return { ...connection, clientCertificateFile: certificateFile, clientKeyFile: keyFile };
}

/**
 * Calls a host's agent.
 *
 * @throws UnreachableHostError, ForeignHostError or the agent's refusal.
 */
export async function withAgent<T>(connection: Connection, work: (agent: Agent) => Promise<T>): Promise<T> {
  const { services, close } = dialHost(identified(connection));
  try {
    return await work(services);
  } catch (error) {
    throw translate(error, `host ${connection.hostId} at ${connection.endpoint}`);
  } finally {
    close();
  }
}
