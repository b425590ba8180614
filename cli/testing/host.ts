/** An agent's API without a host: real TLS with certificates of a real keys folder, and invented answers. */
import { generateKeyPairSync } from "node:crypto";
import { readFileSync } from "node:fs";
import { createSecureServer } from "node:http2";
import type { AddressInfo } from "node:net";
import path from "node:path";
import { Code, ConnectError, type ConnectRouter } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import * as x509 from "@peculiar/x509";
import {
  ContainerPhase,
  GroupPhase,
  GroupService,
  HostService,
  Protocol,
} from "../../hosts/api/gen/palisade/agent/v1/agent_pb.js";
import { FlowDirection, FlowVerdict, NetworkService } from "../../hosts/api/gen/palisade/agent/v1/network_pb.js";
import { readKey } from "../certificates.js";
import type { Connection } from "../stack-state.js";

/** Starts the API of a host with that id; `close` ends it. @param answer default: the invented answers */
export async function startHost(
  keysDirectory: string,
  hostId: string,
  answer: Parameters<typeof createSecureServer>[1] = connectNodeAdapter({ routes: (router) => routes(router, hostId) }),
) {
  const read = (file: string) => readFileSync(path.join(keysDirectory, file), "utf8");
  const ca = read("hosts/ca.crt");
  const { certificate, key } = await serverCertificate(ca, read("hosts/ca.key"), hostId);
  const server = createSecureServer(
    { cert: certificate, key, ca, requestCert: true, rejectUnauthorized: true },
    answer,
  );
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const connection: Connection = {
    hostId,
    endpoint: `https://127.0.0.1:${(server.address() as AddressInfo).port}`,
    certificateAuthority: ca,
    clientCertificateFile: path.join(keysDirectory, "hosts/client.crt"),
    clientKeyFile: path.join(keysDirectory, "hosts/client.key"),
    publishedPorts: [
      { port: 80, protocol: "TCP", address: "127.0.0.1:8080" },
      { port: 80, protocol: "UDP", address: "127.0.0.1:8081" },
    ],
  };
  return { connection, close: () => new Promise<void>((resolve) => void server.close(() => resolve())) };
}

async function serverCertificate(ca: string, caKey: string, hostId: string) {
  const pem = generateKeyPairSync("ec", {
    namedCurve: "P-256",
    privateKeyEncoding: { type: "pkcs8", format: "pem" },
    publicKeyEncoding: { type: "spki", format: "pem" },
  });
  const { keys } = await readKey("ec-p256", pem.privateKey);
  const authority = await readKey("ec-p256", caKey);
  const certificate = await x509.X509CertificateGenerator.create({
    subject: `CN=${hostId}`,
    issuer: new x509.X509Certificate(ca).subject,
    publicKey: keys.publicKey,
    signingKey: authority.keys.privateKey,
    signingAlgorithm: { name: "ECDSA", hash: "SHA-256" },
    extensions: [
      new x509.SubjectAlternativeNameExtension([{ type: "dns", value: `${hostId}.host.palisade.internal` }]),
    ],
  });
  return { certificate: certificate.toString("pem"), key: pem.privateKey };
}

function routes(router: ConnectRouter, hostId: string): void {
  const group = {
    spec: {
      name: "web",
      containers: [{ name: "nginx" }, { name: "sidecar" }],
      ports: [{ port: 80, protocol: Protocol.TCP }],
    },
    generation: 2n,
    status: {
      observedGeneration: 2n,
      phase: GroupPhase.RUNNING,
      containers: [
        { name: "nginx", phase: ContainerPhase.RUNNING, restartCount: 1 },
        { name: "sidecar", phase: ContainerPhase.WAITING, restartCount: 2 },
      ],
    },
  };
  const revoked = new Set<string>();
  router.service(HostService, {
    revokeClientCertificates: ({ serialNumbers }) => {
      for (const number of serialNumbers) revoked.add(number);
      return { revokedSerialNumbers: [...revoked] };
    },
    getHost: () => ({
      revokedSerialNumbers: [...revoked],
      hostId,
      ready: true,
      agentVersion: "1.2.3",
      kernelVersion: "6.12.1",
      containerdVersion: "2.4.2",
      runtimeVersion: "crun 1.21",
      certificateNotAfter: { seconds: 1_800_000_000n },
    }),
    getIntegrity: () => ({
      secureBoot: true,
      lockdown: "integrity",
      root: { rootHash: "abcd", mountPoint: "/", signatureVerified: true, signaturesRequired: true },
      ipe: { activePolicy: "palisade", policyVersion: "1.2.0", enforcing: false },
      selinux: { enabled: true, enforcing: false, policy: "default" },
      mode: "enforce",
      layers: [
        { name: "palisade-layer-a", rootHash: "a", signatureVerified: true, openCount: 1 },
        { name: "palisade-layer-b", rootHash: "b", signatureVerified: false, openCount: 1 },
      ],
    }),
  });
  router.service(GroupService, {
    listGroups: () => ({ groups: [group] }),
    getGroup: ({ name }) => {
      if (name !== "web") throw new ConnectError(`no group ${name}`, Code.NotFound);
      return { group };
    },
    async *getLogs({ container, tailLines }) {
      const data = (text: string) => new TextEncoder().encode(text);
      if (tailLines !== 1) yield { data: data(`${container} begins\n`), stream: "stdout" };
      yield { data: data(`\u001b[31m${container} err`), stream: "stderr" };
      yield { data: data("s\u001b[0m\n"), stream: "stderr" };
    },
  });
  router.service(NetworkService, {
    async *streamFlows(request) {
      if (request.reason === "bad_luck") throw new ConnectError('reason: "bad_luck" is none', Code.InvalidArgument);
      const front = { address: "10.88.0.2", port: 40000, endpoint: "default/front", identity: 256 };
      const web = { address: "10.88.0.3", port: 80, endpoint: "default/\u001b[31mweb", identity: 257 };
      const outside = { address: "2001:db8::1", port: 443, identity: 3 };
      const time = { seconds: 1_800_000_000n, nanos: 500_000_000 };
      const common = { time, protocol: "TCP", hook: "from_container", length: 74 };
      const forwarded = {
        ...common,
        source: front,
        destination: web,
        verdict: FlowVerdict.FORWARDED,
        reason: "forwarded",
      };
      const dropped = {
        ...common,
        source: front,
        destination: outside,
        verdict: FlowVerdict.DROPPED,
        reason: "policy_denied",
      };
      // Echoes the part of the request that the test checks.
      const asked = request.group === "front" && request.direction === FlowDirection.EGRESS && request.port === 443;
      if (!asked) yield { content: { case: "flow", value: forwarded } };
      yield { content: { case: "flow", value: dropped } };
      if (!request.follow) return;
      yield { content: { case: "lost", value: {} } };
      yield { content: { case: "lost", value: { ring: 7n, caller: 2n } } };
    },
  });
}
