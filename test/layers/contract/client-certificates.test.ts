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
import type { ClientRole } from "../../../shared/client-roles.js";
import { AgentHost } from "./agent-host.js";

let host: AgentHost;
let folder: string;
const clients: HostAgentClient[] = [];
let operator: HostAgentClient;
let reader: HostAgentClient;
let spec: GroupSpec;

/** A new certificate of a role, with its serial number. */
async function certificateOf(role: ClientRole) {
  const file = path.join(folder, `${role}-${randomUUID()}.crt`);
  const key = createPublicKey(await readFile(host.connection.clientKeyFile, "utf8"));
  const pem = await signClientCertificate(await readAuthority(host.authority), key, { role, days: 1 });
  await writeFile(file, pem);
  return { file, serialNumber: readClientCertificate(pem).serialNumber };
}

function clientWith({ file }: { file: string }): HostAgentClient {
  const client = host.connect({ ...host.connection, clientCertificateFile: file });
  clients.push(client);
  return client;
}

/** A client with a new certificate of a role. */
const clientOf = async (role: ClientRole) => clientWith(await certificateOf(role));

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
    ["powerOff", (client) => client.powerOff()],
  ])("is refused %s", async (_name, call) => {
    await expect(call(reader)).rejects.toThrow(
      /requires a client certificate of the role operator; this one has the role reader/,
    );
  });

  it("has changed nothing, and an operator can", async () => {
    expect(await operator.getGroup("web")).toMatchObject({ generation: 1n });
    expect(await operator.getGroup("other")).toBeUndefined();
    await operator.deleteGroup("web");
    expect(await reader.getGroup("web")).toBeUndefined();
  });
});

describe("a revoked certificate", () => {
  const refused = /the client certificate is revoked: serial number/;

  it("is refused at once, on an open connection, in a stream, on a new connection and after a restart", async () => {
    const certificate = await certificateOf("operator");
    const client = clientWith(certificate);
    await operator.applyGroup(spec);
    const stream = client.watchGroup("web", new AbortController().signal)[Symbol.asyncIterator]();
    expect((await stream.next()).done).toBe(false);

    await operator.revokeClientCertificates([certificate.serialNumber]);
    await expect(client.getHost()).rejects.toThrow(refused);
    await expect(
      (async () => {
        while (!(await stream.next()).done);
      })(),
    ).rejects.toThrow();
    await expect(clientWith(certificate).getHost()).rejects.toThrow(refused);
    expect((await reader.getHost()).revokedSerialNumbers).toEqual([certificate.serialNumber]);

    await (
      await host.silence()
    )();
    await expect(clientWith(certificate).getHost()).rejects.toThrow(refused);
    // The control: a certificate of the same key that is not revoked.
    await (await clientOf("operator")).deleteGroup("web");
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
