import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { testOwner, withFolder } from "../../system/testing.js";
import type { VirtualMachineSpec } from "../../backends/index.js";
import { readAuthority } from "../certificates/authority.js";
import { completeRecord, issueHostCertificate } from "../certificates/host-identity.js";
import { makeAuthority, makeRequest } from "../certificates/testing.js";
import { IdentityRecords } from "./identity-records.js";
import { HypervisorMarkers } from "./markers.js";

const [first, second] = ["host-0123456789abcdef", "host-ffffffffffffffff"];

/** Two state disks on a machine; the first is that of a host of an older version, without a key. */
async function withDisks(work: (made: Awaited<ReturnType<typeof bench>>) => Promise<void>): Promise<void> {
  await withFolder(async (folder) => work(await bench(folder)));
}

async function bench(folder: string) {
  const markers = new HypervisorMarkers(folder);
  const make = async (name: string, hostId?: string) =>
    markers.disks.adoptOrCreate(
      testOwner(name),
      { sizeGiB: 1 },
      { created: true, ...(hostId === undefined ? {} : { hostId }) },
    );
  const [known, fresh] = [await make("known", first), await make("fresh")];
  const records = new IdentityRecords(markers);
  const authority = await readAuthority(await makeAuthority(folder));
  const file = (id: string) => readFile(join(markers.disks.folder(id), "marker.json"), "utf8");
  const ask = async (record: ReturnType<IdentityRecords["ofDisk"]>, hostId: string, request?: string) => {
    const certificateRequest = request ?? (await makeRequest(hostId)).pem;
    return issueHostCertificate(authority, { hostId, certificateRequest }, record);
  };
  return { folder, markers, known: known.id, fresh: fresh.id, records, file, ask };
}

describe("the record of a state disk", () => {
  it("takes a free id with its key, and is not written for any other", async () => {
    await withDisks(async ({ fresh, known, records, file, ask, markers }) => {
      const before = await file(fresh);
      await expect(ask(records.ofDisk(fresh), first)).rejects.toThrow(
        `host ${first} asks for a certificate from state disk ${fresh}, but this id belongs to state disk ${known}`,
      );
      expect(await file(fresh)).toBe(before);

      const { pem, keyDigest } = await makeRequest(second);
      await ask(records.ofDisk(fresh), second, pem);
      expect((await markers.disks.existing(fresh)).details).toEqual({
        created: true,
        hostId: second,
        hostKeyDigest: keyDigest,
      });
      const after = await file(fresh);
      await ask(records.ofDisk(fresh), second, pem);
      await expect(ask(records.ofDisk(fresh), first)).rejects.toThrow(`where ${second} is expected`);
      await expect(ask(records.ofDisk(fresh), second)).rejects.toThrow(/the key sha256:/);
      expect(await file(fresh)).toBe(after);
    });
  });

  it("of an older version keeps working, and has a key from the next contact on", async () => {
    await withDisks(async ({ known, fresh, records, ask, markers }) => {
      const { pem, keyDigest } = await makeRequest(first);
      await ask(records.ofDisk(known), first, pem);
      expect((await markers.disks.existing(known)).details.hostKeyDigest).toBe(keyDigest);
      await completeRecord(records.ofDisk(known), { hostId: first, keyDigest: "another" });
      expect((await markers.disks.existing(known)).details.hostKeyDigest).toBe(keyDigest);
      await completeRecord(records.ofDisk(fresh), { hostId: second, keyDigest: "any" });
      expect((await markers.disks.existing(fresh)).details).toEqual({ created: true });
    });
  });

  it("counts an id that only the marker of another machine has", async () => {
    await withDisks(async ({ fresh, known, markers, records, ask }) => {
      const spec = { stateDiskId: known } as VirtualMachineSpec;
      const machine = await markers.machines.adoptOrCreate(testOwner("vm"), spec, { ports: [], hostId: second });
      await expect(ask(records.ofDisk(fresh), second)).rejects.toThrow(`belongs to virtual machine ${machine.id}`);
      // The disk's own machine is no other.
      machine.spec = { stateDiskId: fresh } as VirtualMachineSpec;
      await markers.machines.write(machine);
      await ask(records.ofDisk(fresh), second);
    });
  });

  it("lets one of two hosts that claim the same id at once have it", async () => {
    await withDisks(async ({ fresh, markers, records, ask }) => {
      const rival = await markers.disks.adoptOrCreate(testOwner("rival"), { sizeGiB: 1 }, { created: true });
      const results = await Promise.allSettled([fresh, rival.id].map((id) => ask(records.ofDisk(id), second)));
      expect(results.map(({ status }) => status).sort()).toEqual(["fulfilled", "rejected"]);
    });
  });
});

describe("the record of a host on bare metal", () => {
  it("is made at the installation, and holds for a second one", async () => {
    await withDisks(async ({ folder, fresh, known, records, ask }) => {
      await expect(ask(records.ofNewMetalHost(first), first)).rejects.toThrow(`belongs to state disk ${known}`);
      await expect(readFile(join(folder, "metal-hosts", `${first}.json`))).rejects.toThrow(/ENOENT/);

      const { pem } = await makeRequest(second);
      await ask(records.ofNewMetalHost(second), second, pem);
      const content = await readFile(join(folder, "metal-hosts", `${second}.json`), "utf8");
      await ask(records.ofNewMetalHost(second), second, pem);
      await expect(ask(records.ofNewMetalHost(second), second)).rejects.toThrow(/the key sha256:/);
      await expect(ask(records.ofDisk(fresh), second)).rejects.toThrow(`belongs to bare-metal host ${second}`);
      expect(await readFile(join(folder, "metal-hosts", `${second}.json`), "utf8")).toBe(content);
    });
  });

  it("of an older version is made at the next contact", async () => {
    await withDisks(async ({ records, ask }) => {
      await completeRecord(records.ofMetalHost(second), { hostId: second, keyDigest: "aa" });
      expect(await records.ofNewMetalHost(second).read()).toEqual({ hostId: second, keyDigest: "aa" });
      await expect(ask(records.ofMetalHost(second), second)).rejects.toThrow(/not for sha256:aa/);
    });
  });

  it("has the name of a host and no path", () => {
    return withDisks(async ({ records }) => {
      expect(() => records.ofNewMetalHost("../keys")).toThrow(/no host id/);
    });
  });
});
