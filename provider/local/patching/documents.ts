/** What a patched image says of itself: the original's words, and one layer more. */
import type { ImageManifest } from "./transfer.js";

/** https://github.com/opencontainers/image-spec/blob/main/config.md */
export interface ImageConfiguration {
  created?: string;
  history?: unknown[];
  rootfs?: { type: string; diff_ids: string[] };
  config?: Record<string, unknown>;
}

export interface ImageDocuments {
  manifest: Pick<ImageManifest, "layers">;
  configuration: ImageConfiguration;
}

/**
 * The configuration of a patched image: the original's, with the layers and their history that Copa made. Copa also notes where it found
 * the image, which is an address of this moment.
 *
 * @throws when there is not exactly one layer more, on top of the original's.
 */
export function patchedConfiguration(original: ImageDocuments, made: ImageDocuments): ImageConfiguration {
  demandOneMore(
    "layers",
    original.manifest.layers.map(({ digest }) => digest),
    made.manifest.layers.map(({ digest }) => digest),
  );
  const { created, history, rootfs } = made.configuration;
  demandOneMore("rootfs.diff_ids", original.configuration.rootfs?.diff_ids ?? [], rootfs?.diff_ids ?? []);
  return {
    ...original.configuration,
    ...(created === undefined ? {} : { created }),
    ...(history === undefined ? {} : { history }),
    ...(rootfs === undefined ? {} : { rootfs }),
  };
}

function demandOneMore(what: string, lower: string[], all: string[]): void {
  if (all.length === lower.length + 1 && lower.every((one, index) => all[index] === one)) return;
  throw new Error(
    `digest: ${what} of the patched image are ${all.length} where the original's ${lower.length} and one more were expected`,
  );
}
