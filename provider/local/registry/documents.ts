/**
 * Manifests and indexes: https://github.com/opencontainers/image-spec. The agent's twin is
 * hosts/agent/internal/images/documents.go; the tests of both read hosts/api/testdata/image-documents.json.
 */
import * as v from "valibot";
import { decode, fitting, ForeignDataError, object, record } from "../../../shared/decode.js";
import { digestPattern } from "./digest.js";
import { imageIndexTypes, imageManifestType, imageManifestTypes } from "./media-types.js";

const digest = v.pipe(v.string(), v.regex(digestPattern, "is no sha256 digest"));

/** https://github.com/opencontainers/image-spec/blob/main/descriptor.md; other fields are kept. */
export const descriptorSchema = object({
  mediaType: v.nullish(v.string(), ""),
  digest,
  size: v.nullish(v.pipe(v.number(), v.safeInteger(), v.minValue(0)), 0),
  artifactType: v.optional(v.string()),
  annotations: v.optional(record(v.string())),
  platform: v.nullish(
    object({
      os: v.nullish(v.string(), ""),
      architecture: v.nullish(v.string(), ""),
      variant: v.nullish(v.string(), ""),
    }),
  ),
});
export type DecodedDescriptor = v.InferOutput<typeof descriptorSchema>;

const documentSchema = object({
  schemaVersion: v.literal(2),
  mediaType: v.nullish(v.string(), ""),
  artifactType: v.nullish(v.string()),
  annotations: v.nullish(record(v.string())),
});
const imageSchema = object({
  config: descriptorSchema,
  layers: v.nullish(v.array(descriptorSchema), []),
});
const listSchema = object({ manifests: v.nullish(v.array(v.unknown()), []) });

export type ImageDocument =
  | { kind: "image"; mediaType: string; config: DecodedDescriptor; layers: DecodedDescriptor[] }
  | { kind: "index"; manifests: DecodedDescriptor[] };

/**
 * Reads a manifest or an index. A document that could be read as both is refused: other programs might read it
 * differently (CVE-2021-41190).
 *
 * @throws with the place when it is neither or both.
 */
export function readDocument(content: Uint8Array, place: string): ImageDocument {
  const document = decode(documentSchema, content, place);
  const { mediaType } = document;
  const isIndex = "manifests" in document;
  const isImage = "layers" in document || "config" in document;
  if (isIndex === isImage) throw new ForeignDataError(`${place}: is neither an image manifest nor an index`);
  if (mediaType !== "" && !(isIndex ? imageIndexTypes : imageManifestTypes).includes(mediaType)) {
    throw new ForeignDataError(`${place}: says that it is ${JSON.stringify(mediaType)}, which its content is not`);
  }
  if (isIndex) return { kind: "index", manifests: fitting(descriptorSchema, indexEntries(content, place)) };
  const { config, layers } = decode(imageSchema, content, place);
  return { kind: "image", mediaType: mediaType || imageManifestType, config, layers };
}

/** The variants that every CPU of an architecture runs: which CPU the host of an image will have is not known. */
const baseline: Record<string, string[]> = { amd64: ["", "v1"], arm64: ["", "v8"] };

/**
 * The entries of an index that may be the image for Linux on an architecture: those whose platform says so, else those
 * that name no platform, because then only their configuration has it. A caller that needs one image refuses several.
 */
export function candidates(manifests: DecodedDescriptor[], architecture: string): DecodedDescriptor[] {
  const images = manifests.filter(
    ({ mediaType, artifactType }) =>
      (mediaType === "" || imageManifestTypes.includes(mediaType)) && (artifactType ?? "") === "",
  );
  const named = images.filter(
    ({ platform }) =>
      platform?.os === "linux" &&
      platform.architecture === architecture &&
      (baseline[architecture] ?? [""]).includes(platform.variant),
  );
  return named.length > 0 ? distinct(named) : images.filter(({ platform }) => platform == null);
}

function distinct(entries: DecodedDescriptor[]): DecodedDescriptor[] {
  return entries.filter(({ digest: one }, index) => entries.findIndex((other) => other.digest === one) === index);
}

/** Platforms of an index's entries, for messages. */
export function platformsOf(manifests: DecodedDescriptor[]): string {
  const names = manifests.map(({ platform }) =>
    platform ? [platform.os, platform.architecture, platform.variant].filter(Boolean).join("/") : "no platform",
  );
  return [...new Set(names)].join(", ") || "nothing";
}

/** https://github.com/opencontainers/image-spec/blob/main/config.md, as far as it is read. */
export const configurationSchema = object({
  os: v.nullish(v.string(), ""),
  architecture: v.nullish(v.string(), ""),
  rootfs: v.nullish(object({ diff_ids: v.nullish(v.array(digest), []) })),
  config: v.nullish(object({ Labels: v.nullish(record(v.string())) })),
});

/** Layers of an artifact, such as a signature or a seal: those that are descriptors. @throws when it is no manifest. */
export function artifactLayers(content: Uint8Array, place: string): DecodedDescriptor[] {
  return fitting(
    descriptorSchema,
    decode(object({ layers: v.nullish(v.array(v.unknown()), []) }), content, place).layers,
  );
}

/** Entries of an index, as they are. @throws when it is no index. */
export function indexEntries(content: Uint8Array, place: string): unknown[] {
  return decode(listSchema, content, place).manifests;
}
