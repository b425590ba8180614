import { mkdir, readdir, writeFile } from "node:fs/promises";
import path from "node:path";
import { Readable } from "node:stream";
import { afterEach, describe, expect, it, vi } from "vitest";
import { recordRevocations } from "../provider/local/certificates/revocations.js";
import { makeAuthority, makeRequest } from "../provider/local/certificates/testing.js";
import { HypervisorMarkers } from "../provider/local/hypervisor/markers.js";
import { testOwner, withFolder } from "../provider/system/testing.js";
import { initKeys } from "./keys.js";
import { sign, start } from "./metal-command.js";
import { startHost } from "./testing/host.js";

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

describe("the start of an installed host", () => {
  const image = `sha256:${"a".repeat(64)}`;

  /** What `palisade metal start` prints for a host that runs already, with this description of its image. */
  async function started(mode: string | undefined): Promise<{ stdout: string; stderr: string }> {
    return withFolder(async (folder) => {
      vi.stubEnv("PALISADE_STATE", path.join(folder, "state"));
      const keys = path.join(folder, "keys");
      await initKeys(keys);
      if (mode !== undefined) {
        const stored = path.join(folder, "state/images", "a".repeat(64));
        await mkdir(stored, { recursive: true });
        const ipePolicy = { name: "palisade", version: "1.2.0" };
        const description = { digest: image, rootHash: "abcd", ipePolicy, mode, trustedCertificates: [] };
        await writeFile(path.join(stored, "image.json"), JSON.stringify(description));
      }
      const { connection, close } = await startHost(keys, "0123456789abcdef");
      const request = { ssh: { host: "192.0.2.1" }, connection, seconds: 5, image };
      const input = Readable.from([Buffer.from(JSON.stringify(request))]);
      vi.spyOn(process, "stdin", "get").mockReturnValue(input as typeof process.stdin);
      const written = { stdout: "", stderr: "" };
      for (const stream of ["stdout", "stderr"] as const) {
        vi.spyOn(process[stream], "write").mockImplementation((text) => ((written[stream] += String(text)), true));
      }
      try {
        expect(await start()).toBe(0);
        return written;
      } finally {
        vi.restoreAllMocks();
        await close();
      }
    });
  }

  it("fails by the name of each fact in which the host is not as its image says", async () => {
    // The host reports that it does not enforce, as in mode audit, and names the mode enforce.
    await expect(started("enforce")).rejects.toThrow(
      /^host 0123456789abcdef is not as its image says: ipeEnforcing: declared true, observed false\. /,
    );
    await expect(started("audit")).rejects.toThrow('mode: declared "audit", observed "enforce"');
  });

  it("prints the facts, and says so when there is no description to compare them with", async () => {
    const { stdout, stderr } = await started(undefined);
    expect(JSON.parse(stdout)).toMatchObject({ mode: "enforce", rootHash: "abcd" });
    expect(JSON.parse(stdout)).not.toHaveProperty("expectedIntegrity");
    expect(stderr).toContain(`is not compared with its image: there is no image.json of ${image}`);
  });
});
