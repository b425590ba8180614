/** The image to be sealed: its manifest and configuration, each checked against its digest. */
import type { Readable } from "node:stream";
import { decode } from "../../../shared/decode.js";
import { digestOf } from "../registry/digest.js";
import {
  candidates,
  configurationSchema,
  platformsOf,
  readDocument,
  type ImageDocument,
} from "../registry/documents.js";
import type { Descriptor, ManifestContent } from "../registry/repository.js";

/** Where an image is read from: a repository of a registry, or a layout in a folder. */
export interface ImageSource {
  /** For messages. */
  readonly name: string;
  manifest(digest: string): Promise<ManifestContent | undefined>;
  /** A small blob as a whole. */
  blob(digest: string): Promise<Buffer>;
  /** A blob as a stream; the reader checks its digest. */
  openBlob(digest: string): Promise<Readable>;
}

export interface ImageLayer {
  mediaType: string;
  digest: string;
  /** Digest of the layer's tar. */
  diffId: string;
}

export interface SealableImage {
  /** Of the image's manifest. */
  descriptor: Descriptor;
  config: string;
  /** Bottom first. */
  layers: ImageLayer[];
}

/** Name of this machine's architecture in images: https://go.dev/doc/install/source#environment */
const architectures: Record<string, string> = { x64: "amd64", arm64: "arm64" };
export const architecture = architectures[process.arch] ?? process.arch;

/**
 * How many layers an image may have, one at least; hosts hold the same limit (`MaximumLayers` in
 * hosts/seal/manifest.go).
 */
const maximumLayers = 127;

/**
 * The image of a digest. Of an index, the one image for Linux on this machine's architecture; images of other platforms
 * and attestations are ignored.
 *
 * @throws when it is not there, is no image, has no layer or more than hosts take, or is an index with none or several
 * such images.
 */
export async function readImage(source: ImageSource, digest: string): Promise<SealableImage> {
  const document = await readDocumentOf(source, digest);
  if (document.kind === "image") return sealable(source, digest, document);
  const entries = candidates(document.manifests, architecture);
  if (entries.length > 1 && entries[0]!.platform != null) {
    throw new Error(
      `digest: the index ${digest} has ${entries.length} images, ${entries.map((one) => one.digest).join(" and ")}, for ` +
        `linux/${architecture}; give the digest of one image`,
    );
  }
  const others: string[] = [];
  for (const entry of entries) {
    const image = await readDocumentOf(source, entry.digest);
    if (image.kind === "index") throw new Error(`digest: the index ${digest} leads to another index, ${entry.digest}`);
    if (entry.platform != null) return sealable(source, entry.digest, image);
    // Without a platform in the index, the configuration of each image names it.
    try {
      return await sealable(source, entry.digest, image);
    } catch (error) {
      if (!(error instanceof ForeignPlatformError)) throw error;
      others.push(error.platform);
    }
  }
  throw new Error(
    `digest: the index ${digest} has no image for linux/${architecture} that every such CPU runs, only for ` +
      `${others.join(", ") || platformsOf(document.manifests)}; give the digest of one image`,
  );
}

/** The image is for other machines. */
class ForeignPlatformError extends Error {
  constructor(
    message: string,
    readonly platform: string,
  ) {
    super(message);
  }
}

type Document = ImageDocument & { size: number };

async function readDocumentOf(source: ImageSource, digest: string): Promise<Document> {
  const content = await source.manifest(digest);
  if (content === undefined) throw new Error(`digest: ${digest} is not in ${source.name}`);
  if (digestOf(content.bytes) !== digest) {
    throw new Error(`digest: what ${source.name} holds for ${digest} has the digest ${digestOf(content.bytes)}`);
  }
  return { ...readDocument(content.bytes, `digest: ${digest} in ${source.name}`), size: content.bytes.length };
}

async function sealable(
  source: ImageSource,
  digest: string,
  { mediaType, config, layers, size }: Extract<Document, { kind: "image" }>,
): Promise<SealableImage> {
  if (layers.length === 0 || layers.length > maximumLayers) {
    throw new Error(
      `digest: ${digest} in ${source.name} has ${layers.length} layers, expected 1 to ${maximumLayers}; build the image with as many`,
    );
  }
  const place = `digest: configuration ${config.digest} of ${digest} in ${source.name}`;
  const { os, architecture: found, rootfs } = decode(configurationSchema, await source.blob(config.digest), place);
  if (os !== "linux" || found !== architecture) {
    const platform = `${os || "no system"}/${found || "no architecture"}`;
    throw new ForeignPlatformError(`${place}: the image is for ${platform}, not for linux/${architecture}`, platform);
  }
  const diffIds = rootfs?.diff_ids ?? [];
  if (diffIds.length !== layers.length) {
    throw new Error(
      `digest: ${digest} has ${layers.length} layers, and its configuration tells the digests of ${diffIds.length}`,
    );
  }
  return {
    descriptor: { mediaType, digest, size },
    config: config.digest,
    layers: layers.map((layer, index) => ({
      mediaType: layer.mediaType,
      digest: layer.digest,
      diffId: diffIds[index]!,
    })),
  };
}
