/** Configuration of a patched image: that of the original with one more layer. */
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
 * The configuration of a patched image: that of the original, with the layers and the history that Copa made. Copa also
 * records where it found the image, which is a temporary address and is dropped.
 *
 * @throws when there is not exactly one more layer on top of those of the original.
 */
export function patchedConfiguration(original: ImageDocuments, made: ImageDocuments): ImageConfiguration {
  requireOneMore(
    "layers",
    original.manifest.layers.map(({ digest }) => digest),
    made.manifest.layers.map(({ digest }) => digest),
  );
  const { created, history, rootfs } = made.configuration;
  requireOneMore("rootfs.diff_ids", original.configuration.rootfs?.diff_ids ?? [], rootfs?.diff_ids ?? []);
  return {
    ...original.configuration,
    ...(created === undefined ? {} : { created }),
    ...(history === undefined ? {} : { history }),
    ...(rootfs === undefined ? {} : { rootfs }),
  };
}

function requireOneMore(what: string, lower: string[], all: string[]): void {
  if (all.length === lower.length + 1 && lower.every((one, index) => all[index] === one)) return;
  throw new Error(
    `digest: ${what} of the patched image are ${all.length} where the original's ${lower.length} and one more were expected`,
  );
}
