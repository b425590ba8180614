/**
 * Signatures of images in cosign's format, each a layer of the image with the tag `sha256-<hex>.sig`, and attestations,
 * each a layer of the image with the tag `sha256-<hex>.att`:
 * https://github.com/sigstore/cosign/blob/main/specs/SIGNATURE_SPEC.md and
 * https://github.com/sigstore/cosign/blob/main/specs/ATTESTATION_SPEC.md
 */
import { verify, type KeyObject } from "node:crypto";
import * as v from "valibot";
import { decode, fitting, object, unlessBroken } from "../../../shared/decode.js";
import { digestOf, hexOf } from "../registry/digest.js";
import { descriptorSchema } from "../registry/documents.js";
import { imageManifestType } from "../registry/media-types.js";
import type { Repository } from "../registry/repository.js";
import { blobDescriptor, envelopeType } from "./artifact.js";
import { decodeBase64, openEnvelope, signEnvelope } from "./dsse.js";
import type { Signer } from "./signer.js";

const payloadType = "application/vnd.dev.cosign.simplesigning.v1+json";
const configType = "application/vnd.oci.image.config.v1+json";
const signatureAnnotation = "dev.cosignproject.cosign/signature";

/**
 * The signed payload, "simple signing": https://github.com/containers/image/blob/main/docs/containers-signature.5.md
 *
 * @param reference server and repository.
 */
export function simpleSigningPayload(reference: string, digest: string): Buffer {
  const critical = {
    identity: { "docker-reference": reference },
    image: { "docker-manifest-digest": digest },
    type: "cosign container image signature",
  };
  return Buffer.from(JSON.stringify({ critical, optional: null }));
}

/** Tag of the image that holds the signatures of another. */
export const signatureTag = (digest: string) => `sha256-${hexOf(digest)}.sig`;

/**
 * Signs a manifest; signatures of others stay.
 *
 * @returns whether there was no such signature of this key yet.
 */
export async function signImage(repository: Repository, digest: string, signer: Signer): Promise<boolean> {
  const tag = signatureTag(digest);
  const { payload, present, isThere } = await signatures(repository, digest, signer.publicKey);
  if (isThere) return false;
  const signature = (await signer.sign(payload)).toString("base64");
  const layers = [...present, blobDescriptor(payloadType, payload, { [signatureAnnotation]: signature })];
  await putLayers(repository, tag, payload, layers);
  return true;
}

/** Whether a key has signed a manifest for this repository. */
export async function isSigned(repository: Repository, digest: string, publicKey: KeyObject): Promise<boolean> {
  return (await signatures(repository, digest, publicKey)).isThere;
}

async function signatures(repository: Repository, digest: string, publicKey: KeyObject) {
  const payload = simpleSigningPayload(`${repository.server}/${repository.name}`, digest);
  const present = await layersOf(repository, signatureTag(digest));
  const isThere = fitting(descriptorSchema, present).some((layer) => {
    const signature = decodeBase64(layer.annotations?.[signatureAnnotation] ?? "");
    return signature && layer.digest === digestOf(payload) && verify("sha256", payload, publicKey, signature);
  });
  return { payload, present, isThere };
}

/** Tag of the image that holds the attestations of another. */
export const attestationTag = (digest: string) => `sha256-${hexOf(digest)}.att`;

/** Media type of in-toto statements: https://github.com/in-toto/attestation/blob/main/spec/v1/envelope.md */
const statementType = "application/vnd.in-toto+json";

/**
 * Attests something about a manifest. It replaces an earlier attestation of this predicate type by the same key;
 * attestations of others stay.
 *
 * @param notes annotations beside it, which are not signed.
 * @returns digest of the image that holds the attestations.
 */
export async function attestImage(
  repository: Repository,
  digest: string,
  predicateType: string,
  predicate: object,
  signer: Signer,
  notes: Record<string, string> = {},
): Promise<string> {
  const statement = {
    _type: "https://in-toto.io/Statement/v0.1",
    predicateType,
    subject: [{ name: `${repository.server}/${repository.name}`, digest: { sha256: hexOf(digest) } }],
    predicate,
  };
  const envelope = await signEnvelope(statementType, Buffer.from(JSON.stringify(statement)), signer);
  const content = Buffer.from(JSON.stringify(envelope));
  const tag = attestationTag(digest);
  const others: unknown[] = [];
  for (const layer of await layersOf(repository, tag)) {
    const [read] = fitting(descriptorSchema, [layer]);
    const isOurs =
      read?.annotations?.["predicateType"] === predicateType &&
      (await signedStatement(repository, read, signer.publicKey)) !== undefined;
    if (!isOurs) others.push(layer);
  }
  // The first annotation is empty, as the signature is in the envelope.
  const layer = blobDescriptor(envelopeType, content, { ...notes, [signatureAnnotation]: "", predicateType });
  return putLayers(repository, tag, content, [...others, layer]);
}

/**
 * The predicates of a type that a key has attested about a manifest.
 *
 * @throws when the registry does not answer.
 */
export async function attested(
  repository: Repository,
  digest: string,
  predicateType: string,
  publicKey: KeyObject,
): Promise<{ predicate: unknown; notes: Record<string, string> }[]> {
  const found: { predicate: unknown; notes: Record<string, string> }[] = [];
  for (const layer of fitting(descriptorSchema, await layersOf(repository, attestationTag(digest)))) {
    if (layer.annotations?.["predicateType"] !== predicateType) continue;
    const statement = await signedStatement(repository, layer, publicKey);
    if (!statement?.subject.some((one) => one.digest.sha256 === hexOf(digest))) continue;
    found.push({ predicate: statement.predicate, notes: layer.annotations });
  }
  return found;
}

/** https://github.com/in-toto/attestation/blob/main/spec/v1/statement.md */
const statementSchema = object({
  subject: v.array(object({ digest: object({ sha256: v.optional(v.string()) }) })),
  predicate: v.unknown(),
});

/**
 * A statement of a key; undefined when the blob is absent or no statement of the key, so that it hides no other one.
 */
async function signedStatement(repository: Repository, { digest }: { digest: string }, publicKey: KeyObject) {
  if (!(await repository.hasBlob(digest))) return undefined;
  const envelope = await unlessBroken(() => repository.blob(digest));
  if (envelope === undefined) return undefined;
  try {
    return decode(statementSchema, openEnvelope(envelope, statementType, publicKey), digest);
  } catch {
    return undefined;
  }
}

/** Unchanged: entries that are no descriptors are kept for other programs. */
async function layersOf(repository: Repository, tag: string): Promise<unknown[]> {
  const content = await repository.manifest(tag);
  if (content === undefined) return [];
  const schema = object({ layers: v.nullish(v.array(v.unknown()), []) });
  return decode(schema, content.bytes, `registry: ${repository.server}/${repository.name}:${tag}`).layers;
}

/** Writes an image of these layers, and the blob `added`, which the repository lacks. */
async function putLayers(repository: Repository, tag: string, added: Buffer, layers: unknown[]): Promise<string> {
  const config = Buffer.from(JSON.stringify(configuration(layers)));
  await repository.putBlob({ digest: digestOf(added), size: added.length }, added);
  await repository.putBlob({ digest: digestOf(config), size: config.length }, config);
  const manifest = {
    schemaVersion: 2,
    mediaType: imageManifestType,
    config: blobDescriptor(configType, config),
    layers,
  };
  const bytes = Buffer.from(JSON.stringify(manifest));
  await repository.putManifest(tag, bytes, imageManifestType);
  return digestOf(bytes);
}

/** The configuration of an image without a file system, as cosign writes it. */
function configuration(layers: unknown[]): object {
  const created = "0001-01-01T00:00:00Z";
  return {
    architecture: "",
    created,
    history: layers.map(() => ({ created })),
    os: "",
    rootfs: { type: "layers", diff_ids: fitting(descriptorSchema, layers).map(({ digest }) => digest) },
    config: {},
  };
}
