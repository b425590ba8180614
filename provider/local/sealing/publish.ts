/**
 * The seal of an image in its repository, beside the layers' own seals (`layer-seals.ts`):
 *
 * - `application/vnd.palisade.seal.v1`: the signed manifest, the layers' blobs, their signatures;
 * - `application/vnd.oci.mt.pkcs7`: the signatures for other readers, as in
 *   https://github.com/notaryproject/notation/issues/1335.
 *
 * Both refer to the image. A manifest is written after everything that it names, and references to it come last, so an
 * interruption leaves nothing incomplete; a repetition writes the same bytes again.
 */
import type { KeyObject } from "node:crypto";
import { digestOf } from "../registry/digest.js";
import { imageManifestType } from "../registry/media-types.js";
import { addTaggedReferrers, referrer, referrers } from "../registry/referrers.js";
import type { Repository } from "../registry/repository.js";
import { artifact, blobDescriptor, blobType, envelopeIn, envelopeType, signatureType } from "./artifact.js";
import type { ImageLayer, SealableImage } from "./image.js";
import type { SignedLayer } from "./layer-seals.js";
import { openSeal, type SealManifest } from "./seal-manifest.js";

export const sealArtifactType = "application/vnd.palisade.seal.v1";
const pkcs7ArtifactType = "application/vnd.oci.mt.pkcs7";

/** A layer of the image with its seal. */
export interface SealedImageLayer extends SignedLayer {
  of: ImageLayer;
}

/** @returns digest of the seal's manifest. */
export async function publishSeal(
  repository: Repository,
  image: SealableImage,
  layers: SealedImageLayer[],
  envelope: Buffer,
): Promise<string> {
  const notes = ({ of, layer }: SealedImageLayer) => ({
    "image.layer.digest": of.digest,
    "image.layer.root_hash": layer.rootHash,
  });
  const envelopeBlob = blobDescriptor(envelopeType, envelope);
  await repository.putBlob(envelopeBlob, envelope);
  for (const { signature } of layers) {
    await repository.putBlob({ digest: digestOf(signature), size: signature.length }, signature);
  }
  const signatures = await artifact(
    repository,
    pkcs7ArtifactType,
    layers.map((one) =>
      blobDescriptor(signatureType, one.signature, {
        ...notes(one),
        "image.layer.signature": one.signature.toString("base64"),
      }),
    ),
    image.descriptor,
  );
  const seal = await artifact(
    repository,
    sealArtifactType,
    [
      envelopeBlob,
      ...layers.map((one) => ({
        mediaType: blobType,
        digest: one.layer.blob,
        size: one.layer.size,
        annotations: notes(one),
      })),
      ...layers.map((one) => blobDescriptor(signatureType, one.signature, notes(one))),
    ],
    image.descriptor,
  );
  // A registry with the referrers API lists each as soon as it exists: the seal, which hosts look for, comes last.
  await repository.putManifest(signatures.digest, signatures.bytes, imageManifestType);
  const isListed = await repository.putManifest(seal.digest, seal.bytes, imageManifestType);
  if (!isListed) {
    await addTaggedReferrers(repository, image.descriptor.digest, [
      referrer(signatures, pkcs7ArtifactType),
      referrer(seal, sealArtifactType),
    ]);
  }
  return seal.digest;
}

/** A seal that is in the registry. */
export interface PublishedSeal {
  /** Of the seal's manifest. */
  digest: string;
  manifest: SealManifest;
}

/** Seals of an image that a key has signed; others are ignored. */
export async function findSeals(repository: Repository, image: string, sealKey: KeyObject): Promise<PublishedSeal[]> {
  const found: PublishedSeal[] = [];
  for (const { digest } of (await referrers(repository, image)).filter(isSeal)) {
    const seal = await readSeal(repository, digest, sealKey);
    if (seal?.image.digest === image) found.push({ digest, manifest: seal });
  }
  return found;
}

/** Whether a seal of an image exists, signed by any key. */
export async function isSealThere(repository: Repository, image: string, seal: string): Promise<boolean> {
  const listed = (await referrers(repository, image)).some((one) => one.digest === seal && isSeal(one));
  return listed && (await repository.manifest(seal)) !== undefined;
}

const isSeal = ({ artifactType }: { artifactType?: string | undefined }) => artifactType === sealArtifactType;

/** The manifest in a seal; undefined when the artifact or its envelope is absent or not signed by the key. */
async function readSeal(repository: Repository, digest: string, sealKey: KeyObject): Promise<SealManifest | undefined> {
  const bytes = await envelopeIn(repository, digest);
  if (bytes === undefined) return undefined;
  try {
    return openSeal(bytes, sealKey);
  } catch {
    return undefined;
  }
}
