/** A compromised host that claims the id of another one: the real agent, with an identity folder that was edited. */
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { create, fromJsonString } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { afterAll, beforeAll, expect, it } from "vitest";
import { GetHostResponseSchema } from "../../../hosts/api/gen/palisade/agent/v1/agent_pb.js";
import { EnrollmentRequestSchema } from "../../../hosts/api/gen/palisade/agent/v1/enrollment_pb.js";
import { convergeHost } from "../../../provider/local/agent-client/renewal.js";
import { readAuthority } from "../../../provider/local/certificates/authority.js";
import { issueHostCertificate } from "../../../provider/local/certificates/host-identity.js";
import { IdentityRecords } from "../../../provider/local/hypervisor/identity-records.js";
import { HypervisorMarkers } from "../../../provider/local/hypervisor/markers.js";
import { run } from "../../../provider/system/command.js";
import { testOwner } from "../../../provider/system/testing.js";
import { prove } from "../../support/acceptance/prove.js";
import { AgentHost } from "./agent-host.js";

const other = "host-ffffffffffffffff";

let state: string;
let host: AgentHost;
let records: IdentityRecords;
let ownDisk: string;
let newDisk: string;

beforeAll(async () => {
  state = await mkdtemp(path.join(tmpdir(), "palisade-state-"));
  const markers = new HypervisorMarkers(state);
  const disk = (name: string, hostId?: string) =>
    markers.disks.adoptOrCreate(
      testOwner(name),
      { sizeGiB: 1 },
      { created: true, ...(hostId === undefined ? {} : { hostId }) },
    );
  records = new IdentityRecords(markers);
  [ownDisk, newDisk] = [(await disk("own")).id, (await disk("new")).id];
  await disk("other", other);
  host = await AgentHost.start(records.ofDisk(ownDisk));
});
afterAll(async () => {
  await host?.stop();
  await rm(state, { recursive: true, force: true });
});

/** Every file with what is recorded, by its path. */
async function recorded(): Promise<Record<string, string>> {
  const files = (await readdir(state, { recursive: true })).filter((file) => file.endsWith(".json")).sort();
  return Object.fromEntries(
    await Promise.all(files.map(async (file) => [file, await readFile(path.join(state, file), "utf8")] as const)),
  );
}

const errorOf = (work: Promise<unknown>) =>
  work.then(
    () => undefined,
    (error: Error) => error,
  );

it("X7: gets no certificate at first contact", async () => {
  const started = Date.now();
  const folder = path.join(state, "new-host");
  const ask = async () =>
    fromJsonString(EnrollmentRequestSchema, await run(host.program, ["identity", "-data", folder, "request"]));
  const authority = await readAuthority(host.authority);
  const own = await ask();
  await writeFile(path.join(folder, "host-id"), `${other}\n`);
  const claim = await ask();
  expect(claim.hostId).toBe(other);
  const before = await recorded();
  const refusal = await errorOf(issueHostCertificate(authority, claim, records.ofDisk(newDisk)));
  const isUnchanged = JSON.stringify(await recorded()) === JSON.stringify(before);
  const control = await issueHostCertificate(authority, own, records.ofDisk(newDisk));
  prove(
    {
      id: "X7",
      part: "first contact",
      observed: `${refusal?.message}; the markers are ${isUnchanged ? "unchanged" : "changed"}`,
      control: "for its own id, the same disk gets a certificate",
      evidence: `${claim.reason} request of the agent with host-id ${claim.hostId}`,
    },
    started,
    refusal?.name === "CertificateRefusedError" && isUnchanged && control.includes("BEGIN CERTIFICATE"),
  );
});

it("X7: gets no certificate at renewal", async () => {
  const started = Date.now();
  const file = path.join(host.identityFolder, "host-id");
  const own = await readFile(file, "utf8");
  const certificate = () => readFile(path.join(host.identityFolder, "certificate.pem"), "utf8");
  /** The agent with an id in its folder, asked to renew as if its certificate were near its end. */
  const renewAs = async (hostId: string) => {
    const restore = await host.silence();
    await writeFile(file, hostId);
    await restore();
    const client = host.connect(host.connection);
    try {
      const facts = create(GetHostResponseSchema, {
        ...(await client.getHost()),
        certificateNotAfter: timestampFromDate(new Date()),
      });
      const refusal = await errorOf(convergeHost(client, facts, host.authority, records.ofDisk(ownDisk)));
      return { hostId: facts.hostId, refusal };
    } finally {
      client.close();
    }
  };
  const [before, served] = [await recorded(), await certificate()];
  const { hostId, refusal } = await renewAs(`${other}\n`);
  const isUnchanged = JSON.stringify(await recorded()) === JSON.stringify(before) && (await certificate()) === served;
  const control = await renewAs(own);
  prove(
    {
      id: "X7",
      part: "renewal",
      observed: `${refusal?.message}; markers and certificate are ${isUnchanged ? "unchanged" : "changed"}`,
      control: "with its own id, the host gets a new certificate over the same connection",
      evidence: `GetHost over the connection of ${host.connection.hostId} says ${hostId}`,
    },
    started,
    hostId === other &&
      refusal?.name === "CertificateRefusedError" &&
      isUnchanged &&
      control.refusal === undefined &&
      (await certificate()) !== served,
  );
});
