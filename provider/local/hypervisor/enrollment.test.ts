import { once } from "node:events";
import { createServer, connect, type Server, type Socket } from "node:net";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { isDeepStrictEqual } from "node:util";
import { afterEach, describe, expect, it } from "vitest";
import { readAuthority } from "../certificates/authority.js";
import type { IdentityRecord } from "../certificates/host-identity.js";
import { recordRevocations } from "../certificates/revocations.js";
import { makeAuthority, makeRequest, memoryRecord } from "../certificates/testing.js";
import { prove } from "../../../test/support/acceptance/prove.js";
import { testOwner, withFolder } from "../../system/testing.js";
import { EnrollmentServer } from "./enrollment.js";
import { IdentityRecords } from "./identity-records.js";
import { HypervisorMarkers } from "./markers.js";

const hostId = "host-0123456789abcdef";

interface Response {
  certificateChain?: string;
  certificateAuthority?: string;
  signerTime?: string;
  error?: string;
  revokedSerialNumbers?: string[];
}

let open: (Server | Socket)[] = [];
afterEach(() => {
  for (const each of open) if ("destroy" in each) each.destroy();
  for (const each of open) if (!("destroy" in each)) each.close();
  open = [];
});

/** A guest on one end of a socket, the enrollment server on the other. */
async function talk(folder: string, record: IdentityRecord = memoryRecord()) {
  const path = join(folder, "enrollment.sock");
  const server = createServer().listen(path);
  await once(server, "listening");
  const refused: string[] = [];
  const provider = connect(path);
  const [guest] = (await once(server, "connection")) as [Socket];
  open.push(server, provider, guest);
  const files = await makeAuthority(folder);
  await recordRevocations(files.certificateFile, ["a1"]);
  const authority = await readAuthority(files);
  const enrollment = new EnrollmentServer(provider, {
    authority,
    record,
    refuse: (reason) => refused.push(reason),
  });
  let received = "";
  guest.on("data", (data: Buffer) => (received += data.toString()));
  return {
    enrollment,
    recordedId: async () => (await record.read())?.hostId,
    refused,
    send: (text: string) => guest.write(text),
    async answer(): Promise<Response> {
      while (!received.includes("\n")) await new Promise((resolve) => setTimeout(resolve, 10));
      const [line, ...rest] = received.split("\n");
      received = rest.join("\n");
      return JSON.parse(line!) as Response;
    },
  };
}

const request = async (id: string) =>
  JSON.stringify({ hostId: id, certificateRequest: (await makeRequest(id)).pem, reason: "initial" }) + "\n";

describe("EnrollmentServer", () => {
  it("gives a certificate, the CA and its time, after writing down whose it is", async () => {
    await withFolder(async (folder) => {
      const line = await talk(folder);
      line.send(await request(hostId));
      const response = await line.answer();
      expect(response.error ?? "").toBe("");
      expect(response.certificateChain).toContain("BEGIN CERTIFICATE");
      expect(response.certificateAuthority).toContain("BEGIN CERTIFICATE");
      expect(response.revokedSerialNumbers).toEqual(["a1"]);
      expect(Math.abs(Date.parse(response.signerTime!) - Date.now())).toBeLessThan(5000);
      expect(await line.enrollment.enrolled).toBe(hostId);
      expect(await line.recordedId()).toBe(hostId);
    });
  });

  it("passes over rests of lines and nonsense, and reads requests in pieces", async () => {
    await withFolder(async (folder) => {
      const line = await talk(folder);
      const text = await request(hostId);
      line.send(`ertificateRequest":"x"}\n\n{"unknown": \n`);
      line.send(text.slice(0, 40));
      await new Promise((resolve) => setTimeout(resolve, 30));
      line.send(text.slice(40));
      expect((await line.answer()).certificateChain).toContain("BEGIN CERTIFICATE");
      expect(line.refused).toEqual([]);
    });
  });

  it("refuses another host than the expected one, also in the same conversation", async () => {
    await withFolder(async (folder) => {
      const line = await talk(folder);
      line.send(await request(hostId));
      expect((await line.answer()).error ?? "").toBe("");
      line.send(await request("host-ffffffffffffffff"));
      const response = await line.answer();
      expect(response.certificateChain ?? "").toBe("");
      expect(response.error).toMatch(/host-f+ asks for a certificate where host-0123456789abcdef is expected/);
      expect(await line.recordedId()).toBe(hostId);
      expect(line.refused).toHaveLength(1);
    });
  });

  it("X7: refuses a new host that claims the id of another disk, and leaves both markers as they are", async () => {
    const started = Date.now();
    await withFolder(async (folder) => {
      const markers = new HypervisorMarkers(folder);
      const { disks } = markers;
      const spec = { sizeGiB: 1 };
      const victim = await disks.adoptOrCreate(testOwner("victim"), spec, { created: true, hostId });
      const fresh = await disks.adoptOrCreate(testOwner("fresh"), spec, { created: true });
      const content = () =>
        Promise.all([victim, fresh].map(({ id }) => readFile(join(disks.folder(id), "marker.json"), "utf8")));
      const before = await content();
      const line = await talk(folder, new IdentityRecords(markers).ofDisk(fresh.id));
      line.send(await request(hostId));
      const response = await line.answer();
      const after = await content();
      // The same host with an id of its own gets a certificate.
      line.send(await request("host-ffffffffffffffff"));
      const control = await line.answer();
      prove(
        {
          id: "X7",
          part: "serial port",
          observed: `certificate: ${response.certificateChain ? "given" : "none"}; markers unchanged: ${isDeepStrictEqual(after, before)}`,
          control: `with an id of its own: certificate ${control.certificateChain ? "given" : "none"}`,
          evidence: response.error ?? "no error",
        },
        started,
        !response.certificateChain && isDeepStrictEqual(after, before) && Boolean(control.certificateChain),
      );
      expect(response.error).toContain(`from state disk ${fresh.id}, but this id belongs to state disk ${victim.id}`);
      expect(line.refused).toEqual([response.error]);
      expect(control.certificateChain).toContain("BEGIN CERTIFICATE");
      expect(await line.recordedId()).toBe("host-ffffffffffffffff");
    });
  });

  it("refuses a known host that asks for another key", async () => {
    await withFolder(async (folder) => {
      const line = await talk(folder);
      const asked = await request(hostId);
      line.send(asked);
      expect((await line.answer()).error ?? "").toBe("");
      line.send(await request(hostId));
      expect((await line.answer()).error).toMatch(/the key sha256:\w{64}, not for sha256:\w{64}/);
      line.send(asked);
      expect((await line.answer()).certificateChain).toContain("BEGIN CERTIFICATE");
    });
  });
});
