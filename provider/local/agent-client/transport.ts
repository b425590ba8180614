/** Mutual TLS to a host: its certificate has to carry the host's name. */
import { readFileSync } from "node:fs";
import { createClient, type Client } from "@connectrpc/connect";
import { createConnectTransport, Http2SessionManager } from "@connectrpc/connect-node";
import { X509Certificate } from "node:crypto";
import { checkServerIdentity, connect as connectTls, type PeerCertificate } from "node:tls";
import { GroupService, HostService } from "../../../hosts/api/gen/palisade/agent/v1/agent_pb.js";
import { ImagePolicyService } from "../../../hosts/api/gen/palisade/agent/v1/images_pb.js";
import { NetworkService } from "../../../hosts/api/gen/palisade/agent/v1/network_pb.js";
import type { HostConnection, KeyPairFiles } from "../../backends/index.js";
import { hostIdOf, hostName, publicKeyDigest } from "../certificates/host-certificate.js";
import { trustedAuthorities } from "../certificates/replaced-authority.js";
import type { HostIdentity } from "../certificates/host-identity.js";

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

/** A host's agent that was dialled. */
export interface DialledHost {
  services: HostServices;
  /** `publicKeyDigest` of the key with which the host has authenticated itself; undefined before that. */
  keyDigest: () => string | undefined;
  /** Ends the connections. */
  close: () => void;
}

/** Dials a host's agent; nothing is sent before the first call. */
export function dialHost(connection: HostConnection): DialledHost {
  let keyDigest: string | undefined;
  const options = {
    ca: trustedAuthorities(connection),
    cert: read(connection.clientCertificateFile, "clientIdentity.certificateFile"),
    key: read(connection.clientKeyFile, "clientIdentity.keyFile"),
    servername: hostName(connection.hostId),
    minVersion: "TLSv1.3" as const,
    // Node calls it for a certificate whose chain it has verified.
    checkServerIdentity: (name: string, certificate: PeerCertificate) => {
      const problem = checkServerIdentity(name, certificate);
      if (!problem) keyDigest = keyDigestOf(certificate);
      return problem;
    },
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
  return { services, keyDigest: () => keyDigest, close: () => sessionManager.abort() };
}

function keyDigestOf(certificate: PeerCertificate): string {
  return publicKeyDigest(new X509Certificate(certificate.raw).publicKey);
}

/**
 * Id and key of the host that answers at an address with a certificate of this CA: for a host whose identity lies on
 * its disk and is not recorded here. Undefined when nothing answers yet, or with a certificate of another CA.
 */
export async function discoverIdentity(
  address: { host: string; port: number },
  certificateAuthority: string,
  clientIdentity: KeyPairFiles,
  signal?: AbortSignal,
): Promise<HostIdentity | undefined> {
  signal?.throwIfAborted();
  return new Promise((resolve) => {
    let found: HostIdentity | undefined;
    const socket = connectTls({
      ...address,
      ca: trustedAuthorities({ certificateAuthority, clientCertificateFile: clientIdentity.certificateFile }),
      cert: read(clientIdentity.certificateFile, "clientIdentity.certificateFile"),
      key: read(clientIdentity.keyFile, "clientIdentity.keyFile"),
      ALPNProtocols: ["h2"],
      timeout: 3000,
      checkServerIdentity: (_name, certificate) => {
        const hostId = hostIdOf(/(?:^|, )DNS:([^,]+)$/.exec(certificate.subjectaltname ?? "")?.[1] ?? "");
        found = hostId === undefined ? undefined : { hostId, keyDigest: keyDigestOf(certificate) };
        return found === undefined ? new Error("the certificate is no host's") : undefined;
      },
    });
    const end = (identity: HostIdentity | undefined) => {
      socket.destroy();
      resolve(identity);
    };
    socket.once("secureConnect", () => end(found));
    socket.once("error", () => end(undefined));
    socket.once("timeout", () => end(undefined));
  });
}
