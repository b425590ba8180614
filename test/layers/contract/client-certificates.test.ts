/** What the real agent does for clients by the role of their certificate. */
import { createPublicKey, randomUUID } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { create, toJsonString } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { GroupSchema, GroupSpecSchema, type GroupSpec } from "../../../hosts/api/gen/palisade/agent/v1/agent_pb.js";
import { ImagePolicySchema } from "../../../hosts/api/gen/palisade/agent/v1/images_pb.js";
import type { HostAgentClient } from "../../../provider/local/agent-client/client.js";
import { readAuthority } from "../../../provider/local/certificates/authority.js";
import {
  readClientCertificate,
  signClientCertificate,
} from "../../../provider/local/certificates/client-certificate.js";
import { issueHostCertificate } from "../../../provider/local/certificates/host-identity.js";
import { makeAuthority, memoryRecord } from "../../../provider/local/certificates/testing.js";
import { dialHost } from "../../../provider/local/agent-client/transport.js";
import type { ClientRole } from "../../../shared/client-roles.js";
import { prove } from "../../support/acceptance/prove.js";
import { AgentHost } from "./agent-host.js";

let host: AgentHost;
let folder: string;
const clients: HostAgentClient[] = [];
let operator: HostAgentClient;
let reader: HostAgentClient;
let spec: GroupSpec;

/** A new certificate of a role, with its serial number. */
async function certificateOf(role: ClientRole, { days = 1, authority = host.authority } = {}) {
  const file = path.join(folder, `${role}-${randomUUID()}.crt`);
  const key = createPublicKey(await readFile(host.connection.clientKeyFile, "utf8"));
  const pem = await signClientCertificate(await readAuthority(authority), key, { role, days });
  await writeFile(file, pem);
  return { file, serialNumber: readClientCertificate(pem).serialNumber };
}

function clientWith({ file }: { file: string }, certificateAuthority = host.connection.certificateAuthority) {
  const client = host.connect({ ...host.connection, certificateAuthority, clientCertificateFile: file });
  clients.push(client);
  return client;
}

/** A client with a new certificate of a role. */
const clientOf = async (role: ClientRole) => clientWith(await certificateOf(role));

const refusedRole = /requires a client certificate of the role operator; this one has the role reader/;

/** The message of a failure; empty for a success. */
const failureOf = (work: Promise<unknown>): Promise<string> =>
  work.then(
    () => "",
    (error: Error) => error.message,
  );

/** The message with which a stream ends; empty when it ends without an error. */
async function endOf(stream: AsyncIterator<unknown>): Promise<string> {
  try {
    while (!(await stream.next()).done);
    return "";
  } catch (error) {
    return (error as Error).message;
  }
}

beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "palisade-clients-"));
  host = await AgentHost.start();
  [operator, reader] = [await clientOf("operator"), await clientOf("reader")];
  const environment = [{ name: "TOKEN", secure: true, secureValue: "token-canary" }];
  spec = create(GroupSpecSchema, {
    name: "web",
    containers: [{ name: "server", image: host.images[0], environment }],
    imageRegistries: [host.registry],
  });
  await operator.applyGroup(spec);
});
afterAll(async () => {
  for (const client of clients) client.close();
  await host?.stop();
  await rm(folder, { recursive: true, force: true });
});

describe("a reader", () => {
  it("reads, and gets no secret value", async () => {
    expect(await reader.getHost()).toMatchObject({ hostId: host.connection.hostId });
    await reader.getIntegrity();
    const group = (await reader.getGroup("web"))!;
    expect(group.spec!.containers[0]!.environment[0]).toMatchObject({ name: "TOKEN", secureValue: "" });
    expect(toJsonString(GroupSchema, group)).not.toContain("canary");
    expect(await reader.getImagePolicy("none")).toBeUndefined();
  });

  it.each<[string, (client: HostAgentClient) => Promise<unknown>]>([
    ["applyGroup", (client) => client.applyGroup({ ...spec, name: "other" })],
    ["applyGroup, dry run", (client) => client.applyGroup(spec, true)],
    ["deleteGroup", (client) => client.deleteGroup("web")],
    ["suspendReconcile", (client) => client.suspendReconcile(0)],
    ["getLogs", (client) => client.getLogs("web", "server", 1)],
    ["applyImagePolicy", (client) => client.applyImagePolicy(create(ImagePolicySchema, { name: "all" }))],
    ["deleteImagePolicy", (client) => client.deleteImagePolicy("all")],
    ["applyNetworkPolicy", (client) => client.applyNetworkPolicy("{}", "")],
    ["deleteNetworkPolicy", (client) => client.deleteNetworkPolicy()],
    ["repairNetwork", (client) => client.repairNetwork()],
    ["createCertificateRequest", (client) => client.createCertificateRequest()],
    ["installCertificate", (client) => client.installCertificate("")],
    ["revokeClientCertificates", (client) => client.revokeClientCertificates(["a1"])],
    ["setCertificateAuthorities", (client) => client.setCertificateAuthorities([host.connection.certificateAuthority])],
    ["powerOff", (client) => client.powerOff()],
  ])("is refused %s", async (_name, call) => {
    await expect(call(reader)).rejects.toThrow(refusedRole);
  });

  it("X8: has changed nothing, and an operator can", async () => {
    const started = Date.now();
    const refusal = await failureOf(reader.deleteGroup("web"));
    const [group, other] = [await operator.getGroup("web"), await operator.getGroup("other")];
    await operator.deleteGroup("web");
    const left = await reader.getGroup("web");
    prove(
      {
        id: "X8",
        part: "reader",
        observed: `every writing call of a reader is refused; generation ${group?.generation} stays`,
        control: `an operator's call deletes the group: ${left === undefined}`,
        evidence: refusal,
      },
      started,
      refusedRole.test(refusal) && group?.generation === 1n && other === undefined && left === undefined,
    );
  });
});

describe("a revoked certificate", () => {
  const refused = /the client certificate is revoked: serial number/;

  it("X8: is refused at once, on an open connection, in a stream, on a new connection and after a restart", async () => {
    const started = Date.now();
    const certificate = await certificateOf("operator");
    const client = clientWith(certificate);
    await operator.applyGroup(spec);
    const stream = client.watchGroup("web", new AbortController().signal)[Symbol.asyncIterator]();
    expect((await stream.next()).done).toBe(false);

    await operator.revokeClientCertificates([certificate.serialNumber]);
    const open = await failureOf(client.getHost());
    const streaming = await endOf(stream);
    const fresh = await failureOf(clientWith(certificate).getHost());
    expect((await reader.getHost()).revokedSerialNumbers).toEqual([certificate.serialNumber]);
    await (
      await host.silence()
    )();
    const restarted = await failureOf(clientWith(certificate).getHost());
    const control = await failureOf((await clientOf("operator")).deleteGroup("web"));
    prove(
      {
        id: "X8",
        part: "revoked",
        observed: `open connection, new one and after a restart: refused; the stream ends: ${streaming}`,
        control: "a certificate of the same key that is not revoked is admitted",
        evidence: open,
      },
      started,
      [open, fresh, restarted].every((message) => refused.test(message)) && streaming !== "" && control === "",
    );
  });

  it("is not the one of the call itself, which may be the only one", async () => {
    const certificate = await certificateOf("operator");
    const client = clientWith(certificate);
    await expect(client.revokeClientCertificates(["a1", certificate.serialNumber])).rejects.toThrow(
      /serial_numbers\[1\]: this call is made with \w+ itself; revoke it with another operator's certificate/,
    );
    await expect(client.revokeClientCertificates(["A1"])).rejects.toThrow(
      /serial_numbers\[0\]: "A1" is no serial number/,
    );
    expect((await client.getHost()).revokedSerialNumbers).not.toContain("a1");
  });
});

describe("an expired certificate", () => {
  it("X8: is refused, and ends calls on an open connection", async () => {
    const started = Date.now();
    // The life has to last until the first call, and is waited for.
    const certificate = await certificateOf("operator", { days: 15 / (24 * 60 * 60) });
    const client = clientWith(certificate);
    await operator.applyGroup(spec);
    const stream = client.watchGroup("web", new AbortController().signal)[Symbol.asyncIterator]();
    expect((await stream.next()).done).toBe(false);
    const streaming = await endOf(stream);
    const open = await failureOf(client.getHost());
    const { services, close } = dialHost({ ...host.connection, clientCertificateFile: certificate.file });
    const fresh = await failureOf(services.hosts.getHost({}));
    close();
    const control = await failureOf(operator.deleteGroup("web"));
    prove(
      {
        id: "X8",
        part: "expired",
        observed: `open connection: ${open}; a stream ends: ${streaming}; new connection: ${fresh}`,
        control: "before, and with another certificate, the same calls are answered",
        evidence: open,
      },
      started,
      /the client certificate has expired on/.test(open) && streaming !== "" && fresh !== "" && control === "",
    );
  });
});

describe("a new CA", () => {
  it("X8: takes the place of the old one without a new disk, and the old one is refused at once", async () => {
    const started = Date.now();
    const next = await makeAuthority(folder, "next");
    const [oldPem, nextPem] = await Promise.all(
      [host.authority, next].map(async (files) => readFile(files.certificateFile, "utf8")),
    );
    const declared = await operator.applyGroup(spec);
    const oldCertificate = await certificateOf("operator");
    // Trusts the host under either CA, as long as both are in use.
    const both = `${oldPem}${nextPem}`;
    const old = clientWith(oldCertificate, both);
    const stream = old.watchGroup("web", new AbortController().signal)[Symbol.asyncIterator]();
    await stream.next();
    await expect(old.setCertificateAuthorities([nextPem!])).rejects.toThrow(/the CA of this call is missing/);

    const newClient = clientWith(await certificateOf("operator", { authority: next }), both);
    await expect(newClient.getHost()).rejects.toThrow();
    await old.setCertificateAuthorities([oldPem!, nextPem!]);
    const admitted = clientWith(await certificateOf("operator", { authority: next }), both);
    await expect(admitted.setCertificateAuthorities([nextPem!])).rejects.toThrow(
      /the host's own certificate is missing/,
    );

    // The host's own certificate, of the new CA for the same id and key.
    const request = { hostId: host.connection.hostId, certificateRequest: await old.createCertificateRequest() };
    const record = memoryRecord(old.provenIdentity());
    await old.installCertificate(
      await issueHostCertificate(await readAuthority(next), request, record, old.provenIdentity()),
    );
    await old.getHost();
    await admitted.setCertificateAuthorities([nextPem!]);

    const open = await failureOf(old.getHost());
    const streaming = await endOf(stream);
    const fresh = [oldCertificate, await certificateOf("operator")].map((one) =>
      failureOf(clientWith(one, both).getHost()),
    );
    await (
      await host.silence()
    )();
    const after = clientWith(await certificateOf("operator", { authority: next }), nextPem);
    const [{ hostId }, group] = [await after.getHost(), await after.getGroup("web")];
    const restarted = await failureOf(clientWith(oldCertificate, both).getHost());
    prove(
      {
        id: "X8",
        part: "CA",
        observed: `the old CA's client: open connection: ${open}; a stream ends: ${streaming}; new connection: ${await fresh[0]}`,
        control: `with both CAs accepted, the same client is answered; with the new one, host ${hostId} has its groups`,
        evidence: open,
      },
      started,
      /the host does not accept the CA of the client certificate/.test(open) &&
        [streaming, restarted, ...(await Promise.all(fresh))].every((message) => message !== "") &&
        hostId === host.connection.hostId &&
        group?.generation === declared.generation,
    );
  });
});
