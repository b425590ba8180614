/**
 * Patching with real scans, patches, registries and signatures: the rows of test/support/acceptance/patch.json that
 * need no host.
 */
import { readdir } from "node:fs/promises";
import path from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { attested, attestationTag } from "../../../provider/local/sealing/cosign.js";
import { readCertificate } from "../../../provider/local/sealing/signer.js";
import { RegistryProxy } from "../../../provider/local/sealing/testing/proxy.js";
import { openVexType, type VexDocument } from "../../../provider/local/patching/vex.js";
import { report, type Observation } from "../../support/acceptance/report.js";
import { PatchBench } from "./bench.js";

let bench: PatchBench;

beforeAll(async () => {
  bench = await PatchBench.start();
}, 600_000);
afterAll(() => bench.stop());

/** Writes a row down, also when what it needs does not hold. */
async function row(
  id: string,
  work: (seen: Partial<Observation>) => Promise<void>,
  base: Partial<Observation> = {},
): Promise<void> {
  const started = Date.now();
  const seen: Partial<Observation> = {
    observed: "the test broke off before it observed anything",
    evidence: "",
    ...base,
  };
  let pass = false;
  try {
    await work(seen);
    pass = true;
  } catch (error) {
    seen.evidence = `${seen.evidence ?? ""}\n${(error as Error).message}`.trim();
    throw error;
  } finally {
    const seconds = Math.round((Date.now() - started) / 100) / 10;
    report({ table: "patch", id, observed: "", evidence: "", ...seen, pass, seconds });
  }
}

async function vex(repository: string, digest: string): Promise<VexDocument> {
  const { publicKey } = await readCertificate("imageSigner", bench.signer);
  const one = bench.repository(repository);
  try {
    const documents = await attested(one, digest, openVexType, publicKey);
    expect(documents).toHaveLength(1);
    return documents[0]!.predicate as VexDocument;
  } finally {
    one.close();
  }
}

/** Nothing that a patch needs may outlive it. */
async function expectNothingLeft(): Promise<void> {
  const patches = await readdir(path.join(bench.state, "patches"));
  expect(patches.filter((name) => /^patch-[0-9a-f]{12}$/.test(name))).toEqual([]);
  const registries = await readdir(path.join(bench.state, "registries"));
  expect(registries.filter((name) => name.startsWith("registry-"))).toHaveLength(1);
}

const nothing = () => undefined;

/** Of PT1 this holds all but the roll; the end-to-end test that observes it writes it over this. */
function reportRollMissing(): void {
  const missing = "the roll on a host: make e2e";
  report({ table: "patch", id: "PT1", part: "roll", observed: "", evidence: "", missing, pass: true, seconds: 0 });
}

it("patches every fixable vulnerability in one more layer, and publishes the image by digest with an attestation", async () => {
  reportRollMissing();
  await row(
    "PT1",
    async (seen) => {
      const original = await bench.outdatedImage("pt1");
      await bench.seal("pt1", original);
      const op = bench.operation("pt1");
      const patched = await bench.patcher.patch(op, bench.spec("pt1", original));
      const rescanned = await bench.fixableIn("pt1", patched.digest);
      seen.observed = `${patched.fixableBefore} fixable → ${rescanned} on a rescan of ${patched.digest}`;
      expect(patched.fixableBefore).toBeGreaterThan(0);
      expect(patched.fixableAfter).toBe(0);
      expect(rescanned).toBe(0);
      const unpatched = await bench.fixableIn("pt1", original);
      seen.control = `the original, scanned in the same way: ${unpatched} fixable`;
      expect(unpatched).toBe(patched.fixableBefore);
      // The first two markers are the patch's and that of the tools' registry.
      expect(op.checkpoints).toEqual([
        "marker-written",
        "marker-written",
        "registry-started",
        "image-scanned",
        "image-patched",
        "image-pushed",
      ]);

      const [before, after] = [await bench.image("pt1", original), await bench.image("pt1", patched.digest)];
      expect(after.manifest.layers.slice(0, -1)).toEqual(before.manifest.layers);
      expect(after.configuration.config).toEqual(before.configuration.config);
      expect(await bench.tag("pt1", "patched")).toBe(patched.digest);
      expect(await bench.tag("pt1", "latest")).toBe(original);

      const sealed = await bench.seal("pt1", patched.digest);
      expect(sealed.reusedLayers).toBe(before.manifest.layers.length);
      await bench.cosign(["verify"], bench.signer, patched.reference);
      const output = await bench.cosign(["verify-attestation", "--type", "openvex"], bench.signer, patched.reference);
      const { payload } = JSON.parse(output.trim().split("\n").at(-1)!) as { payload: string };
      const statement = JSON.parse(Buffer.from(payload, "base64").toString()) as { predicate: VexDocument };
      const { statements } = statement.predicate;
      const hex = patched.digest.slice("sha256:".length);
      for (const { products } of statements) expect(products[0]!.hashes["sha-256"]).toBe(hex);
      await expect(
        bench.cosign(["verify-attestation", "--type", "openvex"], bench.otherSigner, patched.reference),
      ).rejects.toThrow();
      await expectNothingLeft();
      seen.observed += `; OpenVEX names it, ${statements.length} CVEs fixed; one layer added, the only one sealed anew; configuration unchanged`;
      seen.control += "; cosign refuses another key";
      seen.evidence = `${patched.vexReference}: ${statements.map(({ vulnerability }) => vulnerability.name).join(" ")}`;
    },
    { part: "pipeline" },
  );
});

it("leaves an image alone in which nothing is fixable", async () => {
  await row("PT2", async (seen) => {
    const original = await bench.outdatedImage("pt2");
    const database = await bench.databaseOf("empty", []);
    const op = bench.operation("pt2");
    const patched = await bench.patcher.patch(op, bench.spec("pt2", original, { database }));
    expect(patched).toMatchObject({ digest: original, fixableBefore: 0, fixableAfter: 0, remaining: [] });
    expect(patched.vexReference).toBeUndefined();
    expect(await bench.tag("pt2", "patched")).toBeUndefined();
    expect(await bench.tag("pt2", attestationTag(original))).toBeUndefined();
    await expectNothingLeft();
    seen.observed = "success; the digest is the original's, so nothing rolls; no tag, no attestation";
    seen.evidence = op.lines.join("\n");
  });
});

it("moves no tag when the registry dies in the middle of the push, and the next run completes", async () => {
  await row("PT3", async (seen) => {
    const original = await bench.outdatedImage("pt3");
    const proxy = await RegistryProxy.start(bench.access);
    try {
      const through = bench.spec("pt3", original, { registry: proxy.access });
      let puts = 0;
      // The layer is there, the configuration on its way; from then on nothing answers.
      proxy.behaviour = {
        breakOff: (method) => {
          if (method === "PUT") puts++;
          return puts >= 2 ? "before" : undefined;
        },
      };
      const failure = await bench.patcher.patch(bench.operation("pt3"), through).then(nothing, (error: Error) => error);
      expect(failure?.message).toMatch(/does not answer|broke off/);
      expect(puts).toBeGreaterThanOrEqual(2);
      expect(await bench.tag("pt3", "patched")).toBeUndefined();
      await expectNothingLeft();
      proxy.behaviour = {};
      const patched = await bench.patcher.patch(bench.operation("pt3"), through);
      expect(await bench.tag("pt3", "patched")).toBe(patched.digest);
      expect(await bench.fixableIn("pt3", patched.digest)).toBe(0);
      seen.observed = "failure, no tag; the next run pushed and set the tag";
      seen.evidence = failure!.message;
    } finally {
      await proxy.stop();
    }
  });
});

it("says that credentials are refused, and changes nothing", async () => {
  await row("PT4", async (seen) => {
    const original = await bench.outdatedImage("pt4");
    const registry = { ...bench.access, password: "wrong" };
    const refused = bench.patcher.patch(bench.operation("pt4"), bench.spec("pt4", original, { registry }));
    const failure = await refused.then(nothing, (error: Error) => error);
    expect(failure?.message).toMatch(/refuses access to pt4 \(HTTP 401\); check username and password/);
    expect(failure?.message).not.toContain("wrong");
    expect(await bench.tag("pt4", "patched")).toBeUndefined();
    await expectNothingLeft();
    seen.observed = "refused as wrong credentials; no digest to roll to";
    seen.evidence = failure!.message;
  });
});

it("refuses a release without security updates before it patches, with name and date", async () => {
  await row("PT6", async (seen) => {
    const original = await bench.outdatedImage("pt6", { "/etc/debian_version": "11.11\n" });
    const op = bench.operation("pt6");
    const failure = await bench.patcher.patch(op, bench.spec("pt6", original)).then(nothing, (error: Error) => error);
    expect(failure?.message).toMatch(/Debian 11\.11 \(bullseye\).*no security updates since 20\d\d-\d\d-\d\d/);
    expect(op.checkpoints).not.toContain("image-scanned");
    expect(await bench.tag("pt6", "patched")).toBeUndefined();
    seen.observed = "refused before patching";
    seen.control = "the same image as Debian 13 is patched (PT1)";
    seen.evidence = failure!.message;
  });
});

it("names what the database demands and the mirror lacks, and pushes nothing", async () => {
  await row("PT7", async (seen) => {
    const original = await bench.outdatedImage("pt7");
    const database = await bench.databaseOf("ahead", [
      { package: "nginx", id: "CVE-2026-99999", fixedVersion: "99.0-1" },
    ]);
    const failure = await bench.patcher
      .patch(bench.operation("pt7"), bench.spec("pt7", original, { database }))
      .then(nothing, (error: Error) => error);
    expect(failure?.name).toBe("PatchRefusedError");
    expect(failure?.message).toMatch(/nginx \S+, lower than required 99\.0-1/);
    expect(await bench.tag("pt7", "patched")).toBeUndefined();
    await expectNothingLeft();
    seen.observed = "refused: lower than required; nothing pushed, no tag";
    seen.control = "with what the mirror has, the same image is patched (PT1)";
    seen.evidence = failure!.message;
  });
});

it("starts from the original when it patches again, keeps what is good, and accumulates the attestation", async () => {
  await row("PT13", async (seen) => {
    const original = await bench.outdatedImage("pt13");
    const [krb5, nginx] = await bench.newest(["libkrb5-3", "nginx"]);
    const earlier = [{ package: "krb5", id: "CVE-2026-00001", fixedVersion: krb5! }];
    const first = await bench.databaseOf("earlier", earlier);
    const one = await bench.patcher.patch(bench.operation("pt13"), bench.spec("pt13", original, { database: first }));
    expect(one.digest).not.toBe(original);
    const more = { package: "nginx", id: "CVE-2026-00002", fixedVersion: nginx! };
    const both = await bench.databaseOf("later", [...earlier, more]);
    const spec = bench.spec("pt13", original, { database: both });
    const two = await bench.patcher.patch(bench.operation("pt13"), spec, one.digest);
    expect(two.digest).not.toBe(one.digest);
    const [lower, layers1, layers2] = await Promise.all(
      [original, one.digest, two.digest].map(async (digest) => (await bench.image("pt13", digest)).manifest.layers),
    );
    expect([layers1!.length, layers2!.length]).toEqual([lower!.length + 1, lower!.length + 1]);
    expect(layers2!.slice(0, -1)).toEqual(lower);
    const names = (document: VexDocument) => document.statements.map(({ vulnerability }) => vulnerability.name);
    expect(names(await vex("pt13", one.digest))).toEqual(["CVE-2026-00001"]);
    expect(names(await vex("pt13", two.digest))).toEqual(["CVE-2026-00001", "CVE-2026-00002"]);

    const three = await bench.patcher.patch(bench.operation("pt13"), spec, two.digest);
    expect(three.digest).toBe(two.digest);
    await expect(bench.patcher.patch(bench.operation("pt13"), bench.spec("pt13", two.digest))).rejects.toThrow(
      /is a patched image of sha256:[0-9a-f]{64}; give the original/,
    );
    seen.observed = `layers ${lower!.length} → ${layers1!.length} → ${layers2!.length}; the second starts from the original; scanned again without anything fixable it stays`;
    seen.control = "a patched image given as the original is refused";
    seen.evidence = [one, two, three].map(({ digest, fixableBefore }) => `${digest} ${fixableBefore}`).join("\n");
  });
});
