/**
 * What refers to a manifest: by the registry's referrers API where there is one, else by a tag made from the subject's
 * digest: https://github.com/opencontainers/distribution-spec/blob/main/spec.md#unavailable-referrers-api
 */
import { hexOf } from "./digest.js";
import { fitting } from "../../../shared/decode.js";
import { descriptorSchema, indexEntries, type DecodedDescriptor } from "./documents.js";
import { imageIndexType, imageManifestType } from "./media-types.js";
import type { Descriptor, Repository } from "./repository.js";

/** Manifests that refer to a subject, both as the registry lists them and as the tag does. */
export async function referrers(repository: Repository, subject: string): Promise<DecodedDescriptor[]> {
  const listed = await repository.listedReferrers(subject);
  const tagged = await taggedReferrers(repository, subject);
  return [...(listed ?? []), ...tagged.filter((one) => !listed?.some(({ digest }) => digest === one.digest))];
}

async function taggedReferrers(repository: Repository, subject: string): Promise<DecodedDescriptor[]> {
  return fitting(descriptorSchema, await taggedEntries(repository, subject));
}

/** Unchanged: entries that are no descriptors are kept for other programs. */
async function taggedEntries(repository: Repository, subject: string): Promise<unknown[]> {
  const index = await repository.manifest(fallbackTag(subject));
  if (index === undefined) return [];
  return indexEntries(index.bytes, `registry: ${repository.server}/${repository.name}:${fallbackTag(subject)}`);
}

/** Tag of the index in which a registry without the API keeps what refers to a manifest. */
export function fallbackTag(subject: string): string {
  return `sha256-${hexOf(subject)}`;
}

/** How often the tag is written again because another writer was faster. */
const attempts = 5;

/** Last writer of each tag in this process; the next one waits for it. */
const writers = new Map<string, Promise<void>>();

/**
 * Adds manifests to the tag's index and keeps its other entries. Writers of this process take turns; when a writer of
 * another machine replaced the index meanwhile, ours are added again.
 */
export async function addTaggedReferrers(repository: Repository, subject: string, added: Descriptor[]): Promise<void> {
  const tag = fallbackTag(subject);
  const queue = `${repository.server}/${repository.name}:${tag}`;
  const turn = (writers.get(queue) ?? Promise.resolve()).then(async () => {
    for (let attempt = 0; ; attempt++) {
      const present = await taggedEntries(repository, subject);
      const known = fitting(descriptorSchema, present);
      const lacking = added.filter(({ digest }) => !known.some((one) => one.digest === digest));
      if (lacking.length === 0) return;
      if (attempt === attempts) throw new Error(`registry: others keep replacing ${queue}; try again`);
      const index = { schemaVersion: 2, mediaType: imageIndexType, manifests: [...present, ...lacking] };
      await repository.putManifest(tag, Buffer.from(JSON.stringify(index)), imageIndexType);
    }
  });
  const settled = turn.catch(() => undefined);
  writers.set(queue, settled);
  await turn.finally(() => {
    if (writers.get(queue) === settled) writers.delete(queue);
  });
}

/** Describes a manifest for an index of referrers. */
export function referrer(manifest: { bytes: Buffer; digest: string }, artifactType: string): Descriptor {
  return { mediaType: imageManifestType, digest: manifest.digest, size: manifest.bytes.length, artifactType };
}
