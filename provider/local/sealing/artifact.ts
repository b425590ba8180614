/**
 * Artifacts in a registry: manifests with layers of any type and an empty configuration.
 * https://github.com/opencontainers/image-spec/blob/main/manifest.md#guidelines-for-artifact-usage
 */
import { unlessBroken } from "../../../shared/decode.js";
import { digestOf } from "../registry/digest.js";
import { artifactLayers } from "../registry/documents.js";
import { imageManifestType } from "../registry/media-types.js";
import type { Descriptor, Repository } from "../registry/repository.js";

export const envelopeType = "application/vnd.dsse.envelope.v1+json";
export const blobType = "application/vnd.erofs.layer.v1";
export const signatureType = "application/vnd.oci.image.layer.v1.erofs.sig";

const emptyType = "application/vnd.oci.empty.v1+json";
const empty = Buffer.from("{}");

export function blobDescriptor(mediaType: string, content: Buffer, annotations?: Record<string, string>): Descriptor {
  const descriptor = { mediaType, digest: digestOf(content), size: content.length };
  return annotations === undefined ? descriptor : { ...descriptor, annotations };
}

/**
 * A manifest for layers that the repository has. It holds no times: the same layers give the same digest.
 *
 * @param subject the manifest that it refers to, e.g. an image.
 */
export async function artifact(
  repository: Repository,
  artifactType: string,
  layers: Descriptor[],
  subject?: Descriptor,
): Promise<{ bytes: Buffer; digest: string }> {
  const config = blobDescriptor(emptyType, empty);
  await repository.putBlob(config, empty);
  const manifest = {
    schemaVersion: 2,
    mediaType: imageManifestType,
    artifactType,
    config,
    layers,
    ...(subject === undefined ? {} : { subject }),
  };
  const bytes = Buffer.from(JSON.stringify(manifest));
  return { bytes, digest: digestOf(bytes) };
}

/** The envelope of an artifact; undefined when either is absent or damaged: artifacts of others do not count. */
export function envelopeIn(repository: Repository, digest: string): Promise<Buffer | undefined> {
  return unlessBroken(async () => {
    const content = await repository.manifest(digest);
    if (content === undefined) return undefined;
    const layers = artifactLayers(content.bytes, `registry: ${repository.server}/${repository.name}@${digest}`);
    const envelope = layers.find(({ mediaType }) => mediaType === envelopeType);
    if (envelope === undefined || !(await repository.hasBlob(envelope.digest))) return undefined;
    return repository.blob(envelope.digest);
  });
}
