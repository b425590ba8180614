/**
 * Seals an image that is in a registry: fetches it, seals each layer that is not sealed yet, signs what it is,
 * publishes.
 */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { mkdir, rm } from "node:fs/promises";
import { join } from "node:path";
import type { RegistryAccess, SealObserved, SealSpec } from "../../backends/index.js";
import { readFileIfPresent, writeFileAtomic } from "../../system/atomic-file.js";
import { withLock } from "../../system/lock.js";
import { digestOf } from "../registry/digest.js";
import { Repository } from "../registry/repository.js";
import { signImage } from "./cosign.js";
import { openEnvelope, signEnvelope } from "./dsse.js";
import { readImage, type ImageLayer, type SealableImage } from "./image.js";
import { LayerCache } from "./layer-cache.js";
import { findLayerSeal, putLayerSeal, type SignedLayer } from "./layer-seals.js";
import { ImageLayers, type LayersBelow } from "./layers-below.js";
import { findSeals, publishSeal, type SealedImageLayer } from "./publish.js";
import { sealPayload, sealPayloadType } from "./seal-manifest.js";
import type { Sealing } from "./sealing.js";
import { openSigner } from "./signer.js";
import { verifiedTar } from "./verified-stream.js";

/** Named points at which tests end the call. */
export type Checkpoint = (name: "layer-sealed" | "image-signed" | "seal-published") => Promise<void>;

/**
 * Seals an image. Repeated, or taken up after an interruption, it gives the same result and does only what is lacking.
 *
 * @throws when the image is not there, is not what its digests say, or cannot be sealed.
 */
export async function sealImage(sealing: Sealing, spec: SealSpec, checkpoint: Checkpoint): Promise<SealObserved> {
  // One at a time in a repository, of all that share the cache: they would make the same layers, and some registries
  // stumble over two who put one manifest at once.
  const place = `${spec.registry.server}/${spec.repository}`;
  const lock = join(sealing.cacheDirectory, "seals", ".locks", createHash("sha256").update(place).digest("hex"));
  return withLock(lock, sealing.signal, () => sealInTurn(sealing, spec, checkpoint));
}

async function sealInTurn(sealing: Sealing, spec: SealSpec, checkpoint: Checkpoint): Promise<SealObserved> {
  const { registry, digest } = spec;
  // Before anything is made.
  const imageSigner =
    spec.imageSigner && (await openSigner("imageSigner", spec.imageSigner, sealing.tools, sealing.signal));
  const repository = new Repository(registry, spec.repository, sealing.signal);
  try {
    const image = await readImage(repository, digest);
    if (image.descriptor.digest !== digest) {
      sealing.log("info", `${digest} is an index; its image for this architecture is ${image.descriptor.digest}`);
    }
    const openTar = async (of: ImageLayer) => verifiedTar(of, await repository.openBlob(of.digest));
    const layers: SealedImageLayer[] = [];
    let reusedLayers = 0;
    const all = new ImageLayers(
      image.layers,
      (index) => openTar(image.layers[index]!),
      join(sealing.cacheDirectory, "seals"),
      sealing.signal,
    );
    try {
      for (const [index, of] of image.layers.entries()) {
        const which = `layer ${index + 1} of ${image.layers.length}`;
        const below = all.below(index);
        const same = layers.find(
          ({ layer }) => layer.diffId === of.diffId && (layer.over === undefined || layer.over === below.chain),
        );
        const { made, ...sealed } = same
          ? { ...same, made: false }
          : await sealLayer(sealing, registry, repository, of, which, below, () => openTar(of));
        if (!made) reusedLayers++;
        layers.push({ layer: sealed.layer, signature: sealed.signature, of });
        await checkpoint("layer-sealed");
      }
    } finally {
      await all.close();
    }
    if (imageSigner) {
      for (const signed of new Set([digest, image.descriptor.digest])) await signImage(repository, signed, imageSigner);
      await checkpoint("image-signed");
    }
    sealing.status("publishing the seal");
    const sealDigest = await seal(sealing, repository, image, layers);
    await checkpoint("seal-published");
    return {
      digest,
      reference: `${registry.server}/${spec.repository}@${digest}`,
      sealDigest,
      rootHashes: layers.map(({ layer }) => layer.rootHash),
      layerKey: sealing.layerSigner.certificateHash,
      sealKeyId: sealing.sealSigner.keyId,
      reusedLayers,
    };
  } finally {
    repository.close();
  }
}

/** A layer from the registry, else from this machine's cache, else made now. */
async function sealLayer(
  sealing: Sealing,
  registry: RegistryAccess,
  repository: Repository,
  of: ImageLayer,
  which: string,
  below: LayersBelow,
  openTar: () => Promise<AsyncIterable<Buffer>>,
): Promise<SignedLayer & { made: boolean }> {
  const name = `${which}, ${of.diffId.slice(0, 19)}`;
  const shelved = await findLayerSeal(sealing, repository, of.diffId, below.chain, (reason) =>
    sealing.log("warning", `${name}: its seal in ${registry.server} is not used: ${reason}`),
  );
  if (shelved) {
    sealing.log("info", `${name}: taken from the registry`);
    return { ...shelved, made: false };
  }
  const cache = new LayerCache(sealing.cacheDirectory, sealing.tools);
  const present = await cache.find(of.diffId, below.chain);
  if (!present) sealing.status(`${name}: sealing`);
  const cached = present ?? (await cache.make(of.diffId, openTar, sealing.signal, below));
  const signature = await cache.signature(cached, sealing.layerSigner);
  const { file, ...layer } = cached;
  sealing.status(`${name}: uploading ${Math.ceil(layer.size / 1024 / 1024)} MiB`);
  const signed = { layer, signature };
  try {
    await putLayerSeal(sealing, repository, signed, () => createReadStream(file, { highWaterMark: 1024 * 1024 }));
  } catch (error) {
    // The registry refuses a blob whose digest is wrong: then what lies here is damaged, and is made anew next time.
    if (/DIGEST_INVALID|SIZE_INVALID/.test((error as Error).message)) await cache.forget(cached);
    throw error;
  }
  sealing.log("info", `${name}: ${present ? "taken from the cache" : "sealed"}, ${layer.rootHash.slice(0, 12)}`);
  return { ...signed, made: present === undefined };
}

/** The image's seal, signed and published unless the same is there already. */
async function seal(
  sealing: Sealing,
  repository: Repository,
  image: SealableImage,
  layers: SealedImageLayer[],
): Promise<string> {
  const payload = imagePayload(sealing, image, layers);
  const present = await findSeals(repository, image.descriptor.digest, sealing.sealSigner.publicKey);
  const same = present.find(({ manifest }) => sealPayload(manifest).equals(payload));
  if (same) return same.digest;
  return publishSeal(repository, image, layers, await keptEnvelope(sealing, payload));
}

/** What the seal of an image says. */
export function imagePayload(sealing: Sealing, image: SealableImage, layers: SealedImageLayer[]): Buffer {
  const { digest, mediaType } = image.descriptor;
  return sealPayload({
    image: { digest, mediaType, config: image.config },
    layers: layers.map(({ of, layer, signature }) => ({ digest: of.digest, ...layer, signature: digestOf(signature) })),
    layerKey: sealing.layerSigner.certificateHash,
    tools: sealing.tools.versions,
  });
}

/**
 * The signed seal manifest. A signature of some key stores differs each time; kept, it is the same after an
 * interruption and for everyone on this machine.
 */
export async function keptEnvelope(sealing: Sealing, payload: Buffer): Promise<Buffer> {
  const { sealSigner, cacheDirectory } = sealing;
  const folder = join(cacheDirectory, "seals", "envelopes");
  const name = createHash("sha256").update(sealSigner.keyId).update(payload).digest("hex");
  const file = join(folder, `${name}.json`);
  const present = await readFileIfPresent(file);
  if (present !== undefined) {
    const bytes = Buffer.from(present);
    try {
      if (openEnvelope(bytes, sealPayloadType, sealSigner.publicKey).equals(payload)) return bytes;
    } catch {
      // Damaged; signed anew.
    }
    await rm(file, { force: true });
  }
  const envelope = JSON.stringify(await signEnvelope(sealPayloadType, payload, sealSigner));
  await mkdir(folder, { recursive: true, mode: 0o700 });
  await writeFileAtomic(file, envelope);
  return Buffer.from(envelope);
}
