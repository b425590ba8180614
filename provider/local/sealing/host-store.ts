/**
 * Sealed images in the layout of a host, written here for the images that are part of the host image:
 *
 *     blobs/<root hash>.erofs, .p7s          a layer's blob and its signature
 *     sha256/<xx>/<diffID hex>.erofs         the same blob, where containerd looks for it
 *     sha256/<xx>/<diffID hex>.erofs.dmverity   {"roothash":"…","hashoffset":…}
 *     seals/<image digest hex>.json          the signed seal manifest; written last
 */
import { copyFile, chmod, link, mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import type { SigningKey } from "../../backends/index.js";
import { hexOf } from "../registry/digest.js";
import { readImage, type ImageLayer } from "./image.js";
import { unpackArchive } from "./image-layout.js";
import { LayerCache } from "./layer-cache.js";
import { ImageLayers } from "./layers-below.js";
import type { SealedImageLayer } from "./publish.js";
import { imagePayload, keptEnvelope } from "./seal-image.js";
import { openSealing, type Sealing } from "./sealing.js";
import type { SealTools } from "./tools.js";
import { verifiedTar } from "./verified-stream.js";

/**
 * Seals every image of an OCI archive into a store. The same archive and keys give the same files.
 *
 * @param request.store folder; made when it is not there.
 * @param request.tools default: those of this machine, see `sealTools`.
 * @returns digests of the images.
 */
export async function sealArchiveIntoStore(request: {
  archive: string;
  store: string;
  signers: { layerSigner: SigningKey; sealSigner: SigningKey };
  cacheDirectory: string;
  tools?: SealTools;
  status?: (message: string) => void;
  signal?: AbortSignal;
}): Promise<string[]> {
  const { archive, store, signers, cacheDirectory, tools, status = () => undefined, signal } = request;
  const sealing = await openSealing(signers, {
    cacheDirectory,
    status,
    log: (_severity, message) => status(message),
    ...(tools === undefined ? {} : { tools }),
    ...(signal === undefined ? {} : { signal }),
  });
  const folder = await mkdtemp(join(tmpdir(), "palisade-archive-"));
  try {
    const layout = await unpackArchive(archive, folder, signal);
    const digests: string[] = [];
    for (const digest of await layout.digests()) {
      const image = await readImage(layout, digest);
      const cache = new LayerCache(cacheDirectory, sealing.tools);
      const layers: SealedImageLayer[] = [];
      const openTar = async (of: ImageLayer) => verifiedTar(of, await layout.openBlob(of.digest));
      const all = new ImageLayers(image.layers, (index) => openTar(image.layers[index]!), folder, signal);
      try {
        for (const [index, of] of image.layers.entries()) {
          const below = all.below(index);
          const cached =
            (await cache.find(of.diffId, below.chain)) ??
            (await cache.make(of.diffId, () => openTar(of), signal, below));
          const { file, ...layer } = cached;
          const signature = await cache.signature(cached, sealing.layerSigner);
          await storeLayer(store, file, { of, layer, signature });
          layers.push({ of, layer, signature });
        }
      } finally {
        await all.close();
      }
      await storeSeal(sealing, store, image.descriptor.digest, imagePayload(sealing, image, layers));
      digests.push(image.descriptor.digest);
    }
    return digests;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

async function storeLayer(store: string, file: string, { layer, signature }: SealedImageLayer): Promise<void> {
  const blob = join(store, "blobs", `${layer.rootHash}.erofs`);
  const hex = hexOf(layer.diffId);
  const named = join(store, "sha256", hex.slice(0, 2), `${hex}.erofs`);
  for (const path of [blob, named]) await mkdir(dirname(path), { recursive: true });
  await rm(blob, { force: true });
  await copyFile(file, blob);
  await chmod(blob, 0o644);
  await writePublic(join(store, "blobs", `${layer.rootHash}.p7s`), signature);
  await rm(named, { force: true });
  await link(blob, named);
  await writePublic(`${named}.dmverity`, JSON.stringify({ roothash: layer.rootHash, hashoffset: layer.hashOffset }));
}

async function storeSeal(sealing: Sealing, store: string, image: string, payload: Buffer): Promise<void> {
  await mkdir(join(store, "seals"), { recursive: true });
  await writePublic(join(store, "seals", `${hexOf(image)}.json`), await keptEnvelope(sealing, payload));
}

/** Hosts read the files as any user; the mode does not depend on the caller's umask. */
async function writePublic(file: string, content: string | Buffer): Promise<void> {
  await writeFile(file, content);
  await chmod(file, 0o644);
}
