/** The agent of a host, for the operator. */
import { readFileSync } from "node:fs";
import path from "node:path";
import { renewalAdvice, renewClientIdentity } from "../provider/local/agent-client/client-identity.js";
import { translate } from "../provider/local/agent-client/errors.js";
import { dialHost, type HostServices } from "../provider/local/agent-client/transport.js";
import { readClientCertificate } from "../provider/local/certificates/client-certificate.js";
import { keyPair } from "../shared/directories.js";
import type { Connection } from "./stack-state.js";

/** The services of one host. */
export type Agent = HostServices;

/** The folder of `palisade keys client` whose certificate is shown to hosts. Default: the one of the connection. */
export const clientVariable = "PALISADE_CLIENT";

/** The connection with the client that is shown to hosts. */
export function clientOf(connection: Connection): Connection {
  const folder = process.env[clientVariable];
  if (!folder) return connection;
  const { certificateFile, keyFile } = keyPair(path.resolve(folder), "client");
  return { ...connection, clientCertificateFile: certificateFile, clientKeyFile: keyFile };
}

const warned = new Set<string>();

/** Says once in a process that a certificate is near its end. */
function warn(file: string): void {
  if (warned.has(file)) return;
  warned.add(file);
  const { notAfter } = readClientCertificate(readFileSync(file, "utf8"));
  process.stderr.write(`palisade: ${file} is valid until ${notAfter.toISOString()}; ${renewalAdvice}\n`);
}

/**
 * Calls a host's agent.
 *
 * The client's certificate is renewed first when less than a third of its life is left and the CA's key is beside it.
 *
 * @throws UnreachableHostError, ForeignHostError or the agent's refusal.
 */
export async function withAgent<T>(connection: Connection, work: (agent: Agent) => Promise<T>): Promise<T> {
  const client = clientOf(connection);
  if ((await renewClientIdentity(client)) === "due") warn(client.clientCertificateFile);
  const { services, close } = dialHost(client);
  try {
    return await work(services);
  } catch (error) {
    throw translate(error, `host ${connection.hostId} at ${connection.endpoint}`);
  } finally {
    close();
  }
}
