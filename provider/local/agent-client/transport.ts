/** Mutual TLS to a host: its certificate has to carry the host's name. */
import { readFileSync } from "node:fs";
import { createClient, type Client } from "@connectrpc/connect";
import { createConnectTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { connect as connectTls } from "node:tls";
import { GroupService, HostService } from "../../../hosts/api/gen/palisade/agent/v1/agent_pb.js";
import { ImagePolicyService } from "../../../hosts/api/gen/palisade/agent/v1/images_pb.js";
import { NetworkService } from "../../../hosts/api/gen/palisade/agent/v1/network_pb.js";
import type { HostConnection, KeyPairFiles } from "../../backends/index.js";
import { hostIdOf, hostName } from "../certificates/host-certificate.js";

function read(path: string, field: string): string {
  try {
    return readFileSync(path, "utf8");
  } catch (error) {
    throw new Error(`${field}: ${path} cannot be read: ${(error as Error).message}; run \`palisade keys init\``);
  }
}

/** The services of a host's agent. */
export interface HostServices {
  hosts: Client<typeof HostService>;
  groups: Client<typeof GroupService>;
  imagePolicies: Client<typeof ImagePolicyService>;
  networks: Client<typeof NetworkService>;
}

/** Dials a host's agent; nothing is sent before the first call. `close` ends its connections. */
export function dialHost(connection: HostConnection): { services: HostServices; close: () => void } {
  const options = {
    ca: connection.certificateAuthority,
    cert: read(connection.clientCertificateFile, "clientIdentity.certificateFile"),
    key: read(connection.clientKeyFile, "clientIdentity.keyFile"),
    servername: hostName(connection.hostId),
    minVersion: "TLSv1.3" as const,
  };
  const sessionManager = new Http2SessionManager(connection.endpoint, { idleConnectionTimeoutMs: 5000 }, options);
  const transport = createConnectTransport({
    httpVersion: "2",
    baseUrl: connection.endpoint,
    sessionManager,
    defaultTimeoutMs: 15_000,
  });
  const services = {
    hosts: createClient(HostService, transport),
    groups: createClient(GroupService, transport),
    imagePolicies: createClient(ImagePolicyService, transport),
    networks: createClient(NetworkService, transport),
  };
  return { services, close: () => sessionManager.abort() };
}

/**
 * Id of the host that answers at an address with a certificate of this CA: for a host whose identity lies on its disk
 * and is not recorded here. Undefined when nothing answers yet, or with a certificate of another CA.
 */
export async function discoverHostId(
  address: { host: string; port: number },
  certificateAuthority: string,
  clientIdentity: KeyPairFiles,
  signal?: AbortSignal,
): Promise<string | undefined> {
  signal?.throwIfAborted();
  return new Promise((resolve) => {
    let found: string | undefined;
    const socket = connectTls({
      ...address,
      ca: certificateAuthority,
      cert: read(clientIdentity.certificateFile, "clientIdentity.certificateFile"),
      key: read(clientIdentity.keyFile, "clientIdentity.keyFile"),
      ALPNProtocols: ["h2"],
      timeout: 3000,
      checkServerIdentity: (_name, certificate) => {
        found = hostIdOf(/(?:^|, )DNS:([^,]+)$/.exec(certificate.subjectaltname ?? "")?.[1] ?? "");
        return found === undefined ? new Error("the certificate is no host's") : undefined;
      },
    });
    const end = (id: string | undefined) => {
      socket.destroy();
      resolve(id);
    };
    socket.once("secureConnect", () => end(found));
    socket.once("error", () => end(undefined));
    socket.once("timeout", () => end(undefined));
  });
}
