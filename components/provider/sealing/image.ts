/** An image as it is sealed: its manifest and configuration, each checked against its digest. */
import type { Readable } from "node:stream";
import { digestOf, digestPattern } from "../registry/digest.js";
import { imageIndexTypes, imageManifestType, imageManifestTypes } from "../registry/media-types.js";
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

/** What this machine's images are called: https://go.dev/doc/install/source#environment */
const architectures: Record<string, string> = { x64: "amd64", arm64: "arm64" };
export const architecture = architectures[process.arch] ?? process.arch;

/** How many layers an image may have, one at least; hosts hold the same limit (`MaximumLayers` in hosts/seal/manifest.go). */
const maximumLayers = 127;

interface Manifest {
  config?: { digest?: string };
  layers?: { mediaType?: string; digest?: string }[];
}

/**
 * The image of a digest. Of an index, the one image for Linux on this machine's architecture; what belongs to other platforms and
 * attestations are left out.
 *
 * @throws when it is not there, is no image, has no layer or more than hosts take, or is an index with none or several such images.
 */
export async function readImage(source: ImageSource, digest: string): Promise<SealableImage> {
  const content = await source.manifest(digest);
  if (content === undefined) throw new Error(`digest: ${digest} is not in ${source.name}`);
  if (digestOf(content.bytes) !== digest) {
    throw new Error(`digest: what ${source.name} holds for ${digest} has the digest ${digestOf(content.bytes)}`);
  }
  const value = JSON.parse(content.bytes.toString()) as Manifest & { mediaType?: string; manifests?: Descriptor[] };
  const mediaType = value.mediaType ?? content.mediaType;
  if (imageIndexTypes.includes(mediaType) || (value.manifests && !value.layers)) {
    return readImage(source, chosen(value.manifests ?? [], digest));
  }
  if (!imageManifestTypes.includes(mediaType || imageManifestType) || !value.config || !value.layers) {
    throw new Error(`digest: ${digest} in ${source.name} is no image: its media type is ${mediaType || "not told"}`);
  }
  if (value.layers.length === 0 || value.layers.length > maximumLayers) {
    throw new Error(
      `digest: ${digest} in ${source.name} has ${value.layers.length} layers, expected 1 to ${maximumLayers}; build the image with as many`,
    );
  }
  const config = demandDigest(value.config.digest, `config of ${digest}`);
  const configuration = JSON.parse((await source.blob(config)).toString()) as { rootfs?: { diff_ids?: string[] } };
  const diffIds = configuration.rootfs?.diff_ids ?? [];
  if (diffIds.length !== value.layers.length) {
    throw new Error(
      `digest: ${digest} has ${value.layers.length} layers, and its configuration tells the digests of ${diffIds.length}`,
    );
  }
  return {
    descriptor: { mediaType: mediaType || imageManifestType, digest, size: content.bytes.length },
    config,
    layers: value.layers.map((layer, index) => ({
      mediaType: layer.mediaType ?? "",
      digest: demandDigest(layer.digest, `layers[${index}] of ${digest}`),
      diffId: demandDigest(diffIds[index], `rootfs.diff_ids[${index}] of ${config}`),
    })),
  };
}

function chosen(manifests: Descriptor[], index: string): string {
  const fitting = manifests.filter(
    ({ platform }) => platform?.os === "linux" && platform.architecture === architecture,
  );
  if (fitting.length === 1) return demandDigest(fitting[0]!.digest, `manifests of ${index}`);
  const of =
    fitting.length === 0 ? "no image" : `${fitting.length} images, ${fitting.map((one) => one.digest).join(" and ")},`;
  throw new Error(`digest: the index ${index} has ${of} for linux/${architecture}; give the digest of one image`);
}

function demandDigest(value: string | undefined, what: string): string {
  if (value !== undefined && digestPattern.test(value)) return value;
  throw new Error(`${what}: ${JSON.stringify(value) ?? "nothing"} is no sha256 digest`);
}
