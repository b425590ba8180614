import { copyFile, mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { Bench, layerOf, putImage, tarOf } from "../provider/local/sealing/testing/bench.js";
import { run } from "./commands.js";

const image = `registry.example:5000/web/app@sha256:${"a".repeat(64)}`;

let out: string;
let err: string;
beforeEach(() => {
  out = err = "";
  vi.spyOn(process.stdout, "write").mockImplementation((text) => ((out += String(text)), true));
  vi.spyOn(process.stderr, "write").mockImplementation((text) => ((err += String(text)), true));
});
afterEach(() => {
  vi.restoreAllMocks();
});

describe("palisade seal", () => {
  it("names the key that is missing before anything is made", async () => {
    vi.stubEnv("PALISADE_CACHE", "/nowhere/cache");
    await expect(run(["seal", image, "--keys", tmpdir()])).rejects.toThrow(
      /layers\/layer\.crt cannot be read: .*`palisade keys init` makes/,
    );
    vi.unstubAllEnvs();
  });

  describe("with a registry", () => {
    let bench: Bench;
    let reference: string;
    let options: string[];
    beforeAll(async () => {
      bench = await Bench.start(await mkdtemp(join(tmpdir(), "palisade-seal-command-")));
      const repository = bench.repository("web/app");
      const digest = await putImage(repository, [await layerOf(await tarOf({ hello: "hello\n" }))]);
      repository.close();
      const { server, username, password, ca } = bench.access;
      reference = `${server}/web/app@${digest}`;
      const keys = join(bench.folder, "operator");
      const files = {
        "layers/layer": "layerSigner",
        "layers/seal": "sealSigner",
        "images/signer": "imageSigner",
      } as const;
      for (const [stem, role] of Object.entries(files)) {
        await mkdir(join(keys, stem, ".."), { recursive: true });
        await copyFile(bench.keys[role].certificateFile, join(keys, `${stem}.crt`));
        await copyFile(bench.keys[role].keyFile!, join(keys, `${stem}.key`));
      }
      await writeFile(join(bench.folder, "password"), `${password}\n`, { mode: 0o600 });
      await writeFile(join(bench.folder, "ca.crt"), ca!);
      options = [
        ...["--keys", keys, "--username", username!, "--password-file", join(bench.folder, "password")],
        ...["--ca", join(bench.folder, "ca.crt")],
      ];
      vi.stubEnv("PALISADE_CACHE", await bench.cache("command"));
    }, 300_000);
    afterAll(async () => {
      vi.unstubAllEnvs();
      await bench?.stop();
      if (bench) await rm(bench.folder, { recursive: true, force: true });
    });

    it("seals, with progress on standard error and the result on standard output", async () => {
      expect(await run(["seal", reference, ...options])).toBe(0);
      expect(err).toMatch(/layer 1 of 1.*sealing\n[^]*publishing the seal\n/);
      expect(out).toMatch(
        new RegExp(`^image {6}${reference}\nseal {7}sha256:[0-9a-f]{64}\nlayers {5}1, of which 0 had`),
      );
      const first = /sha256:[0-9a-f]{64}$/m.exec(out.split("\n")[1]!)![0];

      out = "";
      expect(await run(["seal", reference, ...options, "-o", "json"])).toBe(0);
      expect(JSON.parse(out)).toMatchObject({ reference, sealDigest: first, reusedLayers: 1 });
    });

    it("takes the credentials of a registry of this machine when none are given", async () => {
      vi.stubEnv("PALISADE_STATE", join(bench.folder, "state"));
      const keys = options.slice(0, 2);
      expect(await run(["seal", reference, ...keys, "-o", "json"])).toBe(0);
      expect(await readdir(join(bench.folder, "state", "registries"))).toHaveLength(2);
    });
  });
});
