/** The resource with a real registry and the real sealer: reads, absence, and errors that name the field. */
import { copyFile, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import type { Backends } from "../backends/index.js";
import { testOperation } from "../system/testing.js";
import { hexOf } from "../local/registry/digest.js";
import { imageIndexType } from "../local/registry/media-types.js";
import { PropertyError } from "../backends/errors.js";
import { unknown, type Properties } from "../protocol/resource.js";
import { LocalSealer } from "../local/sealing/local-sealer.js";
import { Bench, layerOf, makeKey, putImage, tarOf } from "../local/sealing/testing/bench.js";
import { sealedImage } from "./sealed-image.js";

let bench: Bench;
let backends: Backends;
let image: string;
beforeAll(async () => {
  bench = await Bench.start(await mkdtemp(join(tmpdir(), "palisade-sealed-image-")));
  const findRegistry = async (server: string) =>
    server === bench.access.server ? ({ ...bench.access, powerState: "running" } as never) : undefined;
  backends = {
    sealer: new LocalSealer(await bench.cache("resource"), findRegistry),
    registries: { findRegistry },
  } as unknown as Backends;
  const repository = bench.repository("web");
  image = await putImage(repository, [await layerOf(await tarOf({ hello: "hello\n" }))]);
  repository.close();
}, 300_000);
afterAll(async () => {
  vi.unstubAllEnvs();
  await bench?.stop();
  if (bench) await rm(bench.folder, { recursive: true, force: true });
});

const given = (change: Properties = {}): Properties => ({
  registry: { ...bench.access },
  repository: "web",
  digest: image,
  layerSigner: { ...bench.keys.layerSigner },
  sealSigner: { ...bench.keys.sealSigner },
  ...change,
});

async function checked(inputs: Properties): Promise<Properties> {
  const { failures, inputs: known } = await sealedImage.check({ backends }, { inputs, oldInputs: undefined });
  expect(failures).toEqual([]);
  return known;
}

const op = testOperation("sealed-image", { milliseconds: 600_000 });
const create = (inputs: Properties, preview = false) => sealedImage.create({ backends }, { inputs, preview, op });
const read = (id: string, state?: { inputs: Properties; outputs: Properties }) =>
  sealedImage.read({ backends }, { id, inputs: state?.inputs, outputs: state?.outputs, op });

describe("SealedImage", () => {
  let inputs: Properties;
  let state: { id: string; outputs: Properties };
  beforeAll(async () => {
    inputs = await checked(given());
    state = await create(inputs);
  });

  it("tells in preview what it can, and the same once it is made", async () => {
    const { outputs } = await create(inputs, true);
    for (const name of ["reference", "layerKey", "sealKeyId"]) {
      expect(outputs[name]).toMatch(/^[0-9a-f]{64}$|@sha256:/);
      expect(state.outputs[name]).toBe(outputs[name]);
    }
    expect(outputs["sealDigest"]).toBe(unknown);
    expect(state.id).toBe(`${bench.access.server}/web@${image}`);
    expect(state.outputs).toMatchObject({ digest: image, reusedLayers: 0 });
  });

  it("is read as it is, and imported by its id under the operator's key", async () => {
    expect((await read(state.id, { inputs, outputs: state.outputs }))!.outputs).toEqual(state.outputs);
    const home = join(bench.folder, "home");
    await mkdir(join(home, "keys/layers"), { recursive: true });
    await copyFile(bench.keys.sealSigner.certificateFile, join(home, "keys/layers/seal.crt"));
    vi.stubEnv("PALISADE_HOME", home);
    const imported = (await read(state.id))!;
    const { sealDigest, rootHashes, layerKey, sealKeyId } = state.outputs;
    expect(imported.outputs).toMatchObject({ sealDigest, rootHashes, layerKey, sealKeyId });
    expect(sealedImage.diff({ id: state.id, oldInputs: imported.inputs, oldOutputs: {}, inputs })).toEqual([]);
  });

  it("is absent while the image is not sealed, or not by that key", async () => {
    const missing = `${bench.access.server}/web@sha256:${"0".repeat(64)}`;
    expect(await read(missing)).toBeUndefined();
    const sealSigner = await makeKey(bench.folder, "read-by", "ec");
    const other = await checked(given({ sealSigner }));
    const { sealKeyId } = other;
    expect(
      await read(state.id, { inputs: other, outputs: { ...state.outputs, sealKeyId: sealKeyId! } }),
    ).toBeUndefined();
  });

  it("is absent when its seal was taken away", async () => {
    const repository = bench.repository("web");
    const tag = `sha256-${hexOf(image)}`;
    const kept = (await repository.manifest(tag))!.bytes;
    const none = { schemaVersion: 2, mediaType: imageIndexType, manifests: [] };
    try {
      await repository.putManifest(tag, Buffer.from(JSON.stringify(none)), imageIndexType);
      expect(await read(state.id, { inputs, outputs: state.outputs })).toBeUndefined();
    } finally {
      await repository.putManifest(tag, kept, imageIndexType);
      repository.close();
    }
    expect(await read(state.id, { inputs, outputs: state.outputs })).toBeDefined();
  });

  it("is sealed again, and shown so in preview, when another certificate lies in the same file", async () => {
    const folder = await mkdtemp(join(bench.folder, "rotation-"));
    const place = await makeKey(folder, "seal", "ec");
    const before = await checked(given({ sealSigner: place }));
    const made = await create(before);
    await makeKey(folder, "seal", "ec");
    // A refresh after the rotation: what was sealed by the old key is there.
    const refreshed = (await read(made.id, { inputs: before, outputs: made.outputs }))!;
    expect(refreshed.outputs).toEqual(made.outputs);
    const after = await checked(given({ sealSigner: place }));
    const diff = sealedImage.diff({ id: made.id, oldInputs: before, oldOutputs: made.outputs, inputs: after });
    expect(diff.map(({ path, kind }) => `${path} ${kind}`)).toEqual(["sealKeyId update"]);
    const request = { id: made.id, oldInputs: before, oldOutputs: made.outputs, inputs: after, op };
    const foreseen = await sealedImage.update({ backends }, { ...request, preview: true });
    expect(foreseen["sealKeyId"]).toBe(after["sealKeyId"]);
    expect(foreseen["sealDigest"]).toBe(unknown);
    const updated = await sealedImage.update({ backends }, { ...request, preview: false });
    expect(updated["sealKeyId"]).toBe(after["sealKeyId"]);
    expect(updated["sealDigest"]).not.toBe(made.outputs["sealDigest"]);
    expect(updated["rootHashes"]).toEqual(made.outputs["rootHashes"]);
  });

  it("does not show where a key lies as a change", async () => {
    const copies = await mkdtemp(join(bench.folder, "moved-"));
    const certificateFile = join(copies, "layer.crt");
    await copyFile(bench.keys.layerSigner.certificateFile, certificateFile);
    const moved = await checked(given({ layerSigner: { certificateFile, keyFile: "/elsewhere/layer.key" } }));
    expect(sealedImage.diff({ id: state.id, oldInputs: inputs, oldOutputs: state.outputs, inputs: moved })).toEqual([]);
  });

  it("refuses a key that is not its certificate's, by the field, before anything is made", async () => {
    const stranger = await makeKey(bench.folder, "stranger", "rsa");
    const { certificateFile } = bench.keys.layerSigner;
    const wrong = await checked(given({ layerSigner: { certificateFile, keyFile: stranger.keyFile } }));
    const failure = await create(wrong).catch((error: unknown) => error);
    expect(failure).toBeInstanceOf(PropertyError);
    expect((failure as PropertyError).failures[0]!.property).toBe("layerSigner.keyFile");
  });

  it("refuses a certificate that cannot be read, in Check", async () => {
    const file = join(bench.folder, "none.crt");
    await writeFile(file, "none");
    const sealSigner = { certificateFile: file, keyFile: "/k" };
    const { failures } = await sealedImage.check({ backends }, { inputs: given({ sealSigner }), oldInputs: undefined });
    expect(failures.map(({ property }) => property)).toEqual(["sealSigner.certificateFile"]);
  });

  it("stays in the registry when the resource is deleted", async () => {
    await sealedImage.delete({ backends }, { id: state.id, inputs, outputs: state.outputs, op });
    expect(await read(state.id, { inputs, outputs: state.outputs })).toBeDefined();
  });
});
