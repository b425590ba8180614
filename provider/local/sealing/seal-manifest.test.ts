import { createPublicKey, generateKeyPairSync, sign } from "node:crypto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { preAuthenticationEncoding } from "./dsse.js";
import {
  layerSealPayload,
  layerSealPayloadType,
  openLayerSeal,
  openSeal,
  sealPayload,
  sealPayloadType,
  type SealManifest,
} from "./seal-manifest.js";

const { privateKey } = generateKeyPairSync("ec", { namedCurve: "P-256" });
const publicKey = createPublicKey(privateKey);

function envelope(payloadType: string, payload: Buffer): Buffer {
  const sig = sign("sha256", preAuthenticationEncoding(payloadType, payload), privateKey).toString("base64");
  return Buffer.from(
    JSON.stringify({ payloadType, payload: payload.toString("base64"), signatures: [{ keyid: "", sig }] }),
  );
}

const hex = fc.stringMatching(/^[0-9a-f]{64}$/);
const digest = hex.map((text) => `sha256:${text}`);
const layer = fc
  .record({
    ...{ digest, diffId: digest, rootHash: hex, hashOffset: fc.integer({ min: 1, max: 2 ** 20 }), blob: digest },
    ...{ size: fc.integer({ min: 1, max: 2 ** 30 }), signature: digest },
  })
  .map((one) => ({ ...one, hashOffset: one.hashOffset * 4096, size: one.hashOffset * 4096 + one.size }));
const manifest: fc.Arbitrary<Omit<SealManifest, "version">> = fc.record({
  image: fc.record({ digest, mediaType: fc.string({ minLength: 1 }).filter((text) => /./.test(text)), config: digest }),
  layers: fc.array(layer),
  layerKey: hex,
  tools: fc.constant({ "mkfs.erofs": "1.8.6", veritysetup: "2.7.5", palisade: "0.1.0" }),
});

describe("a seal manifest", () => {
  it("comes back as it was, in the order of the format", () => {
    fc.assert(
      fc.property(manifest, (one) => {
        const payload = sealPayload(one);
        expect(openSeal(envelope(sealPayloadType, payload), publicKey)).toEqual({ version: 1, ...one });
        expect(payload.toString()).toMatch(/^\{"version":1,"image":\{"digest":".*"layers":\[.*"layerKey":".*"tools":/s);
      }),
    );
  });

  it("has the same bytes whatever the order and the company of its fields", () => {
    fc.assert(
      fc.property(manifest, (one) => {
        const turned = Object.fromEntries(Object.entries(one).reverse()) as unknown as typeof one;
        turned.layers = one.layers.map(
          (each) => ({ file: "/cache", ...Object.fromEntries(Object.entries(each).reverse()) }) as never,
        );
        expect(sealPayload(turned)).toEqual(sealPayload(one));
      }),
    );
  });

  const [example] = fc.sample(
    manifest.filter(({ layers }) => layers.length > 1),
    { numRuns: 1, seed: 1 },
  );
  const { layers } = example!;
  it.each<[string, object]>([
    ["seal.version", { version: 2 }],
    ["seal.image.digest", { image: { ...example!.image, digest: "latest" } }],
    ["seal.layers", { layers: undefined }],
    ["seal.layers[1].rootHash", { layers: [layers[0], { ...layers[1], rootHash: "ABC" }] }],
    ["seal.layers[1].signature", { layers: [layers[0], { ...layers[1], signature: undefined }] }],
    ["seal.layers[0].hashOffset", { layers: [{ ...layers[0], hashOffset: -1 }] }],
    ["seal.layers[0].size", { layers: [{ ...layers[0], size: "1" }] }],
    ["seal.layerKey", { layerKey: undefined }],
    ["seal.tools.veritysetup", { tools: { ...example!.tools, veritysetup: 2 } }],
  ])("is refused for its %s although it is signed", (path, change) => {
    const payload = Buffer.from(JSON.stringify({ version: 1, ...example, ...change }));
    expect(() => openSeal(envelope(sealPayloadType, payload), publicKey)).toThrow(`${path}: `);
  });

  it("is not taken for the seal of a layer, nor the other way round", () => {
    const one = layerSealPayload({ layer: layers[0]!, layerKey: example!.layerKey, tools: example!.tools });
    expect(openLayerSeal(envelope(layerSealPayloadType, one), publicKey).layer).not.toHaveProperty("digest");
    expect(() => openSeal(envelope(layerSealPayloadType, one), publicKey)).toThrow(/the envelope holds/);
    expect(() => openLayerSeal(envelope(sealPayloadType, sealPayload(example!)), publicKey)).toThrow(
      /the envelope holds/,
    );
  });
});
