import { mkdir, readdir } from "node:fs/promises";
import path from "node:path";
import { Readable } from "node:stream";
import { afterEach, expect, it, vi } from "vitest";
import { recordRevocations } from "../provider/local/certificates/revocations.js";
import { makeAuthority, makeRequest } from "../provider/local/certificates/testing.js";
import { HypervisorMarkers } from "../provider/local/hypervisor/markers.js";
import { testOwner, withFolder } from "../provider/system/testing.js";
import { sign } from "./metal-command.js";

afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
});

it("signs for a host that is installed, again for the same key, and for no id of another host", async () => {
  await withFolder(async (folder) => {
    const state = path.join(folder, "state");
    vi.stubEnv("PALISADE_STATE", state);
    await mkdir(path.join(folder, "hosts"));
    const { certificateFile } = await makeAuthority(path.join(folder, "hosts"));
    await recordRevocations(certificateFile, ["a1"]);
    const [metal, nested] = ["host-0123456789abcdef", "host-ffffffffffffffff"];
    const { disks } = new HypervisorMarkers(state);
    const disk = await disks.adoptOrCreate(testOwner("disk"), { sizeGiB: 1 }, { created: true, hostId: nested });
    const run = async (hostId: string, certificateRequest: string) => {
      const input = Readable.from([Buffer.from(JSON.stringify({ hostId, certificateRequest }))]);
      vi.spyOn(process, "stdin", "get").mockReturnValue(input as typeof process.stdin);
      let written = "";
      vi.spyOn(process.stdout, "write").mockImplementation((text) => {
        written += String(text);
        return true;
      });
      try {
        expect(await sign({ keys: folder })).toBe(0);
      } finally {
        vi.restoreAllMocks();
      }
      return written;
    };
    const { pem } = await makeRequest(metal);
    for (let installation = 1; installation <= 2; installation++) {
      const answer = JSON.parse(await run(metal, pem));
      expect(answer.certificateChain).toContain("BEGIN CERTIFICATE");
      expect(answer.revokedSerialNumbers).toEqual(["a1"]);
    }
    await expect(run(metal, (await makeRequest(metal)).pem)).rejects.toThrow(/the key sha256:/);
    await expect(run(nested, (await makeRequest(nested)).pem)).rejects.toThrow(`belongs to state disk ${disk.id}`);
    expect(await readdir(path.join(state, "metal-hosts"))).toEqual([`${metal}.json`]);
  });
});
