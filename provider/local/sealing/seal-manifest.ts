/** The content of a seal: the layers of an image, each with the root hash that the kernel requires of it. */
import type { KeyObject } from "node:crypto";
import { parseJson } from "../../../shared/decode.js";
import { digestPattern } from "../registry/digest.js";
import { openEnvelope } from "./dsse.js";
import type { SealedLayer } from "./layer.js";
import type { ToolVersions } from "./tools.js";

/** What the agent holds to as well: hosts/seal/manifest.go. */
const blockSize = 4096;
const maximumBlobSize = 64 * 1024 ** 3;
const maximumEnvelope = 1024 * 1024;

export const sealPayloadType = "application/vnd.palisade.seal.v1+json";
export const layerSealPayloadType = "application/vnd.palisade.layer-seal.v1+json";

/** A layer of an image: as in the image's manifest, and sealed. */
export interface ImageLayerSeal extends SealedLayer {
  /** Of the layer as in the image's manifest. */
  digest: string;
  /** Digest of the file with the signature over the root hash, so that a registry cannot exchange it. */
  signature: string;
}

export interface SealManifest {
  version: 1;
  image: { digest: string; mediaType: string; config: string };
  /** Bottom first, as in the image. */
  layers: ImageLayerSeal[];
  /** SHA-256 of the layer signer's certificate in DER, hex. */
  layerKey: string;
  tools: ToolVersions;
}

export interface LayerSealManifest {
  version: 1;
  layer: SealedLayer;
  layerKey: string;
  tools: ToolVersions;
}

/** The manifest's bytes. The same content always gives the same ones. */
export function sealPayload(manifest: Omit<SealManifest, "version">): Buffer {
  const { digest, mediaType, config } = manifest.image;
  const layers = manifest.layers.map(({ digest, signature, ...layer }) => ({
    digest,
    ...layerFields(layer),
    signature,
  }));
  return bytes({
    version: 1,
    image: { digest, mediaType, config },
    layers,
    layerKey: manifest.layerKey,
    tools: toolFields(manifest.tools),
  });
}

export function layerSealPayload(manifest: Omit<LayerSealManifest, "version">): Buffer {
  const { layer, layerKey, tools } = manifest;
  const { over } = layer;
  const fields = { ...layerFields(layer), ...(over === undefined ? {} : { over }) };
  return bytes({ version: 1, layer: fields, layerKey, tools: toolFields(tools) });
}

const bytes = (value: unknown) => Buffer.from(JSON.stringify(value));

/** What the seal of an image says of a layer, too; that it says which layers are below goes without saying. */
function layerFields({ diffId, rootHash, hashOffset, size, blob }: SealedLayer): SealedLayer {
  return { diffId, rootHash, hashOffset, size, blob };
}

function toolFields(tools: ToolVersions): ToolVersions {
  return { "mkfs.erofs": tools["mkfs.erofs"], veritysetup: tools.veritysetup, palisade: tools.palisade };
}

/** @throws when the envelope is not the key's, or holds no such manifest. */
export function openSeal(envelope: Buffer, publicKey: KeyObject): SealManifest {
  if (envelope.length > maximumEnvelope) {
    throw new Error(`the envelope has ${envelope.length} bytes, more than ${maximumEnvelope}`);
  }
  const value = parseJson(openEnvelope(envelope, sealPayloadType, publicKey), "seal");
  const seal = new Shape("seal", value);
  seal.constant("version", 1);
  const image = seal.child("image");
  for (const name of ["digest", "config"]) image.matches(name, digestPattern);
  image.matches("mediaType", /[^]/);
  seal.list("layers").forEach((layer) => {
    for (const name of ["digest", "signature"]) layer.matches(name, digestPattern);
    checkLayer(layer);
  });
  seal.matches("layerKey", /^[0-9a-f]{64}$/);
  // For information; a seal of another version may name other tools.
  seal.texts("tools");
  return value as SealManifest;
}

/** @throws when the envelope is not the key's, or holds no such manifest. */
export function openLayerSeal(envelope: Buffer, publicKey: KeyObject): LayerSealManifest {
  const value = parseJson(openEnvelope(envelope, layerSealPayloadType, publicKey), "layer seal");
  const seal = new Shape("layer seal", value);
  seal.constant("version", 1);
  const layer = seal.child("layer");
  checkLayer(layer);
  if (layer.has("over")) layer.matches("over", digestPattern);
  checkMaking(seal);
  return value as LayerSealManifest;
}

function checkLayer(layer: Shape): void {
  layer.matches("diffId", digestPattern);
  layer.matches("rootHash", /^[0-9a-f]{64}$/);
  layer.matches("blob", digestPattern);
  const hashOffset = layer.size("hashOffset", (bytes) => bytes >= blockSize && bytes % blockSize === 0);
  layer.size("size", (bytes) => bytes > hashOffset && bytes <= maximumBlobSize);
}

function checkMaking(seal: Shape): void {
  seal.matches("layerKey", /^[0-9a-f]{64}$/);
  const tools = seal.child("tools");
  for (const name of ["mkfs.erofs", "veritysetup", "palisade"]) tools.matches(name, /./);
}

/** A parsed value that is checked field by field; errors name the path of the wrong field. */
class Shape {
  constructor(
    private readonly path: string,
    private readonly value: unknown,
  ) {}

  child(name: string): Shape {
    return new Shape(`${this.path}.${name}`, this.field(name));
  }

  has(name: string): boolean {
    return this.field(name) !== undefined;
  }

  list(name: string): Shape[] {
    const value = this.field(name);
    if (!Array.isArray(value)) throw this.misfit(name, value);
    return value.map((item, index) => new Shape(`${this.path}.${name}[${index}]`, item));
  }

  constant(name: string, expected: unknown): void {
    if (this.field(name) !== expected) throw this.misfit(name, this.field(name));
  }

  matches(name: string, pattern: RegExp): void {
    const value = this.field(name);
    if (typeof value !== "string" || !pattern.test(value)) throw this.misfit(name, value);
  }

  size(name: string, fits: (bytes: number) => boolean): number {
    const value = this.field(name);
    if (typeof value !== "number" || !Number.isSafeInteger(value) || !fits(value)) throw this.misfit(name, value);
    return value;
  }

  /** An object whose values are texts; it may be missing. */
  texts(name: string): void {
    const value = this.field(name) ?? {};
    if (typeof value !== "object" || Array.isArray(value)) throw this.misfit(name, value);
    for (const key of Object.keys(value)) this.child(name).matches(key, /^/);
  }

  private field(name: string): unknown {
    return (this.value as Record<string, unknown> | null | undefined)?.[name];
  }

  private misfit(name: string, value: unknown): Error {
    return new Error(`${this.path}.${name}: ${JSON.stringify(value) ?? "nothing"} does not fit`);
  }
}
