/**
 * A channel in its repository: the tag `palisade-channel-<name>` points to an image as any tag does, and a signed
 * record beside that image says since when the channel points to it. A manifest is written after everything that it
 * names, and the tag last.
 */
import type { KeyObject } from "node:crypto";
import * as v from "valibot";
import { decode, object } from "../../../shared/decode.js";
import { channelTagPrefix } from "../../backends/index.js";
import { digestOf } from "../registry/digest.js";
import { imageManifestType } from "../registry/media-types.js";
import { addTaggedReferrers, referrer, referrers } from "../registry/referrers.js";
import type { ManifestContent, Repository } from "../registry/repository.js";
import { artifact, blobDescriptor, envelopeIn, envelopeType } from "../sealing/artifact.js";
import { openEnvelope, signEnvelope } from "../sealing/dsse.js";
import type { Signer } from "../sealing/signer.js";

const channelTag = (channel: string) => `${channelTagPrefix}${channel}`;

export const recordArtifactType = "application/vnd.palisade.channel.v1";
const recordPayloadType = `${recordArtifactType}+json`;

/** Content of the signed record. */
export interface ChannelRecord {
  /** server/repository */
  repository: string;
  channel: string;
  digest: string;
  /** Milliseconds since the epoch; each publication of a channel is later than the one before. */
  publishedAt: number;
}

const recordSchema: v.GenericSchema<unknown, ChannelRecord> = object({
  repository: v.string(),
  channel: v.string(),
  digest: v.string(),
  publishedAt: v.pipe(v.number(), v.safeInteger()),
});

/** The manifest to which a channel points; undefined when the repository has no such channel. */
export function channelTarget(repository: Repository, channel: string): Promise<ManifestContent | undefined> {
  return repository.manifest(channelTag(channel));
}

/** When a key has last published an image into a channel, milliseconds since the epoch; undefined when it never did. */
export async function publicationOf(
  repository: Repository,
  channel: string,
  digest: string,
  publicKey: KeyObject,
): Promise<number | undefined> {
  const records = (await recordsOf(repository, digest, publicKey)).filter((record) => record.channel === channel);
  return records.length === 0 ? undefined : Math.max(...records.map(({ publishedAt }) => publishedAt));
}

/** The channel into which a key has published an image last; undefined when it has published it into none. */
export async function lastChannelOf(
  repository: Repository,
  digest: string,
  publicKey: KeyObject,
): Promise<string | undefined> {
  const records = await recordsOf(repository, digest, publicKey);
  return records.sort((a, b) => b.publishedAt - a.publishedAt)[0]?.channel;
}

/** The records about an image that a key has signed. */
async function recordsOf(repository: Repository, digest: string, publicKey: KeyObject): Promise<ChannelRecord[]> {
  const records: ChannelRecord[] = [];
  for (const found of await referrers(repository, digest)) {
    if (found.artifactType !== recordArtifactType) continue;
    const record = await readRecord(repository, found.digest, publicKey);
    if (record?.repository === placeOf(repository) && record.digest === digest) records.push(record);
  }
  return records;
}

/** Publishes an image into the channel: signs the record, then moves the tag. */
export async function moveChannel(
  repository: Repository,
  channel: string,
  digest: string,
  publishedAt: number,
  signer: Signer,
): Promise<void> {
  const image = await repository.manifest(digest);
  if (image === undefined) throw new Error(`digest: ${digest} is not in ${placeOf(repository)}`);
  const record: ChannelRecord = { repository: placeOf(repository), channel, digest, publishedAt };
  const envelope = Buffer.from(
    JSON.stringify(await signEnvelope(recordPayloadType, Buffer.from(JSON.stringify(record)), signer)),
  );
  const layer = blobDescriptor(envelopeType, envelope);
  await repository.putBlob(layer, envelope);
  const subject = { mediaType: image.mediaType, digest, size: image.bytes.length };
  const made = await artifact(repository, recordArtifactType, [layer], subject);
  const isListed = await repository.putManifest(made.digest, made.bytes, imageManifestType);
  if (!isListed) await addTaggedReferrers(repository, digest, [referrer(made, recordArtifactType)]);
  await repository.putManifest(channelTag(channel), image.bytes, image.mediaType);
}

const placeOf = ({ server, name }: Repository): string => `${server}/${name}`;

/** Undefined when the record is absent, damaged or not signed by the key: records of others do not count. */
async function readRecord(
  repository: Repository,
  digest: string,
  publicKey: KeyObject,
): Promise<ChannelRecord | undefined> {
  const envelope = await envelopeIn(repository, digest);
  if (envelope === undefined) return undefined;
  try {
    return decode(recordSchema, openEnvelope(envelope, recordPayloadType, publicKey), digest);
  } catch {
    return undefined;
  }
}

/** A short file name for a channel: without separators, the same on every machine. */
export function channelId(server: string, repository: string, channel: string): string {
  return digestOf(`${server}/${repository}:${channelTag(channel)}`).slice("sha256:".length);
}
