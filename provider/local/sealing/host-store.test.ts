import { execFileSync } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { defaultCacheDirectory } from "../../../shared/directories.js";
import { digestOf, hexOf } from "../registry/digest.js";
import { imageManifestType } from "../registry/media-types.js";
import { sealArchiveIntoStore } from "./host-store.js";
import { architecture } from "./image.js";
import { isRootHashSignature } from "./root-hash-signature.js";
import { openSeal } from "./seal-manifest.js";
import { layerOf, makeKey, tarOf, type TestLayer } from "./testing/bench.js";
import { sealTools, type SealTools } from "./tools.js";

let tools: SealTools;
let folder: string;
let archive: string;
let image: string;
let layer: TestLayer;
let signers: Parameters<typeof sealArchiveIntoStore>[0]["signers"];
beforeAll(async () => {
  tools = await sealTools(defaultCacheDirectory());
  folder = await mkdtemp(join(tmpdir(), "palisade-host-store-"));
  signers = { layerSigner: await makeKey(folder, "layer", "rsa"), sealSigner: await makeKey(folder, "seal", "ec") };
  layer = await layerOf(await tarOf({ pause: "a program" }));
  ({ archive, image } = await makeArchive(layer));
}, 300_000);
afterAll(() => rm(folder, { recursive: true, force: true }));

/** An OCI layout in a tar. */
async function makeArchive({ content, diffId, mediaType }: TestLayer) {
  const layout = await mkdtemp(join(folder, "layout-"));
  await mkdir(join(layout, "blobs/sha256"), { recursive: true });
  const put = async (bytes: Buffer, type: string) => {
    await writeFile(join(layout, "blobs/sha256", hexOf(digestOf(bytes))), bytes);
    return { mediaType: type, digest: digestOf(bytes), size: bytes.length };
  };
  const json = (value: unknown) => Buffer.from(JSON.stringify(value));
  const rootfs = { type: "layers", diff_ids: [diffId] };
  const config = await put(json({ architecture, os: "linux", rootfs }), "application/vnd.oci.image.config.v1+json");
  const layers = [await put(content, mediaType)];
  const manifest = await put(
    json({ schemaVersion: 2, mediaType: imageManifestType, config, layers }),
    imageManifestType,
  );
  await writeFile(join(layout, "index.json"), json({ schemaVersion: 2, manifests: [manifest] }));
  await writeFile(join(layout, "oci-layout"), json({ imageLayoutVersion: "1.0.0" }));
  const file = `${layout}.tar`;
  execFileSync("tar", ["-C", layout, "-cf", file, "."]);
  return { archive: file, image: manifest.digest };
}

async function contents(store: string): Promise<Record<string, string>> {
  const entries = await readdir(store, { recursive: true, withFileTypes: true });
  const files = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  const read = files
    .sort()
    .map(async (file) => [file.slice(store.length + 1), digestOf(await readFile(file))] as const);
  return Object.fromEntries(await Promise.all(read));
}

it("an archive's image becomes a store of files that the kernel and hosts accept", async () => {
  const store = join(folder, "store");
  const sealed = sealArchiveIntoStore({ archive, store, signers, tools, cacheDirectory: join(folder, "cache") });
  expect(await sealed).toEqual([image]);

  const { publicKey } = new X509Certificate(await readFile(signers.sealSigner.certificateFile));
  const seal = openSeal(await readFile(join(store, "seals", `${hexOf(image)}.json`)), publicKey);
  expect(seal.image.digest).toBe(image);
  const { rootHash, hashOffset, blob } = seal.layers[0]!;
  const hex = hexOf(layer.diffId);
  expect(Object.keys(await contents(store))).toEqual([
    `blobs/${rootHash}.erofs`,
    `blobs/${rootHash}.p7s`,
    `seals/${hexOf(image)}.json`,
    `sha256/${hex.slice(0, 2)}/${hex}.erofs`,
    `sha256/${hex.slice(0, 2)}/${hex}.erofs.dmverity`,
  ]);

  const file = join(store, "blobs", `${rootHash}.erofs`);
  const named = join(store, "sha256", hex.slice(0, 2), `${hex}.erofs`);
  expect((await stat(named)).ino).toBe((await stat(file)).ino);
  expect((await stat(file)).mode & 0o777).toBe(0o644);
  expect(digestOf(await readFile(file))).toBe(blob);
  expect(JSON.parse(await readFile(`${named}.dmverity`, "utf8"))).toEqual({
    roothash: rootHash,
    hashoffset: hashOffset,
  });
  await tools.run("veritysetup", ["verify", `--hash-offset=${hashOffset}`, file, file, rootHash]);
  const signature = await readFile(join(store, "blobs", `${rootHash}.p7s`));
  expect(await isRootHashSignature(tools, signers.layerSigner.certificateFile, rootHash, signature)).toBe(true);
});

it("the same archive and keys give the same files on another machine, and again", async () => {
  const stores = await Promise.all(
    ["a", "b", "a"].map(async (name, index) => {
      const store = join(folder, "stores", String(index));
      await sealArchiveIntoStore({ archive, store, signers, tools, cacheDirectory: join(folder, `cache-${name}`) });
      return contents(store);
    }),
  );
  expect(stores[1]).toEqual(stores[0]);
  expect(stores[2]).toEqual(stores[0]);
});

it("an archive whose layer is not what its configuration says gives no seal", async () => {
  const wrong = await makeArchive({ ...layer, diffId: `sha256:${"0".repeat(64)}` });
  const store = join(folder, "wrong");
  const sealed = sealArchiveIntoStore({ ...wrong, store, signers, tools, cacheDirectory: join(folder, "cache") });
  await expect(sealed).rejects.toThrow(/layer's tar sha256:0+: what was read/);
  await expect(readdir(store)).rejects.toThrow(/ENOENT/);
});
