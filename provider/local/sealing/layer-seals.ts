/**
 * Layers that were sealed before, kept in the registry beside the images: `sha256-<diffID hex>.seal` leads to the
 * layer's seal, blob and signature. The registry only stores them: a seal that is not signed by our own seal key counts
 * as absent.
 */
import { digestOf, hexOf } from "../registry/digest.js";
import { artifactLayers } from "../registry/documents.js";
import { imageManifestType } from "../registry/media-types.js";
import type { Repository } from "../registry/repository.js";
import { artifact, blobDescriptor, blobType, envelopeType, signatureType } from "./artifact.js";
import { signEnvelope } from "./dsse.js";
import type { SealedLayer } from "./layer.js";
import { isRootHashSignature } from "./root-hash-signature.js";
import { layerSealPayload, layerSealPayloadType, openLayerSeal } from "./seal-manifest.js";
import type { Sealing } from "./sealing.js";

const artifactType = "application/vnd.palisade.layer-seal.v1";

/** A sealed layer with its signature, wherever its blob is stored. */
export interface SignedLayer {
  layer: SealedLayer;
  signature: Buffer;
}

const tagOf = (diffId: string) => `sha256-${hexOf(diffId)}.seal`;

/**
 * The sealed layer in the registry; undefined when there is none that is ours, complete, and made by the present key
 * and tools.
 *
 * @param over chain ID of the layers below.
 * @param refused gets the reason why a seal that exists is not used.
 */
export async function findLayerSeal(
  sealing: Sealing,
  repository: Repository,
  diffId: string,
  over: string,
  refused: (reason: string) => void,
): Promise<SignedLayer | undefined> {
  const manifest = await repository.manifest(tagOf(diffId));
  if (manifest === undefined) return undefined;
  try {
    const layers = artifactLayers(manifest.bytes, `registry: ${repository.server}/${repository.name}:${tagOf(diffId)}`);
    const one = (type: string) => layers.find(({ mediaType }) => mediaType === type)?.digest ?? "";
    const { layer, layerKey, tools } = openLayerSeal(
      await repository.blob(one(envelopeType)),
      sealing.sealSigner.publicKey,
    );
    if (layer.diffId !== diffId) throw new Error(`it is the seal of ${layer.diffId}`);
    if (layer.over !== undefined && layer.over !== over) throw new Error("it was made over other layers");
    if (layerKey !== sealing.layerSigner.certificateHash) throw new Error("it was signed by another layer key");
    if (JSON.stringify(tools) !== JSON.stringify(sealing.tools.versions)) throw new Error("it was made by other tools");
    if (!(await repository.hasBlob(layer.blob))) throw new Error("its blob is not there");
    const signature = await repository.blob(one(signatureType));
    if (!(await isRootHashSignature(sealing.tools, sealing.layerCertificateFile, layer.rootHash, signature))) {
      throw new Error("its signature is not that of the layer key");
    }
    return { layer, signature };
  } catch (error) {
    sealing.signal?.throwIfAborted();
    refused((error as Error).message);
    return undefined;
  }
}

/** Writes a layer to the registry: its parts first, the tag that points to them last. */
export async function putLayerSeal(
  sealing: Sealing,
  repository: Repository,
  { layer, signature }: SignedLayer,
  openBlob: Parameters<Repository["putBlob"]>[1],
): Promise<void> {
  const payload = layerSealPayload({
    layer,
    layerKey: sealing.layerSigner.certificateHash,
    tools: sealing.tools.versions,
  });
  const envelope = Buffer.from(JSON.stringify(await signEnvelope(layerSealPayloadType, payload, sealing.sealSigner)));
  const parts = [
    blobDescriptor(envelopeType, envelope),
    { mediaType: blobType, digest: layer.blob, size: layer.size },
    blobDescriptor(signatureType, signature),
  ];
  await repository.putBlob({ digest: layer.blob, size: layer.size }, openBlob);
  await repository.putBlob({ digest: digestOf(signature), size: signature.length }, signature);
  await repository.putBlob({ digest: digestOf(envelope), size: envelope.length }, envelope);
  const manifest = await artifact(repository, artifactType, parts);
  await repository.putManifest(tagOf(layer.diffId), manifest.bytes, imageManifestType);
}
