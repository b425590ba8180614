/**
 * The layers below a layer of an image: needed where its archive omits folders of the layers below, or links to their
 * files.
 */
import { createHash } from "node:crypto";
import { open, rm, type FileHandle } from "node:fs/promises";
import { join } from "node:path";
import { randomUUID } from "node:crypto";
import { readArchive } from "./layer-archive.js";
import { LayerTree } from "./layer-tree.js";

/** An archive in a file without a name: it is removed when it is closed, which happens however this process ends. */
export interface SpooledArchive {
  file: FileHandle;
  /** Bytes. */
  size: number;
}

/** Writes an archive to the disk; when it ends in an error, so does the call. */
export async function spool(
  tar: AsyncIterable<Buffer>,
  directory: string,
  signal?: AbortSignal,
): Promise<SpooledArchive> {
  const path = join(directory, `.layer-${randomUUID()}.tar`);
  const file = await open(path, "wx+", 0o600);
  try {
    await rm(path);
    let size = 0;
    for await (const chunk of tar) {
      signal?.throwIfAborted();
      for (let written = 0; written < chunk.length;) {
        written += (await file.write(chunk, written, chunk.length - written, size + written)).bytesWritten;
      }
      size += chunk.length;
    }
    return { file, size };
  } catch (error) {
    await file.close();
    throw error;
  }
}

export interface LayersBelow {
  /** Chain ID of the layers, see `chainId`. */
  readonly chain: string;
  /** Their tree. The caller may change it. */
  tree(): Promise<LayerTree>;
}

/**
 * Identifies layers on top of each other.
 * https://github.com/opencontainers/image-spec/blob/main/config.md#layer-chainid; that of no layers is the digest of
 * nothing.
 */
export function chainId(diffIds: string[]): string {
  const digest = (text: string) => `sha256:${createHash("sha256").update(text).digest("hex")}`;
  const [first, ...rest] = diffIds;
  return rest.reduce((chain, diffId) => digest(`${chain} ${diffId}`), first ?? digest(""));
}

/** Below the lowest layer. */
export const nothingBelow: LayersBelow = { chain: chainId([]), tree: async () => new LayerTree(true) };

/** The layers of an image, each read at most once, and only when one above it needs it. */
export class ImageLayers {
  private readonly spooled: Promise<SpooledArchive>[] = [];

  /**
   * @param layers bottom first.
   * @param openTar a layer's tar, which ends in an error when it is not the right one.
   * @param directory for their archives.
   */
  constructor(
    private readonly layers: { diffId: string }[],
    private readonly openTar: (index: number) => Promise<AsyncIterable<Buffer>>,
    private readonly directory: string,
    private readonly signal?: AbortSignal,
  ) {}

  below(index: number): LayersBelow {
    const below = this.layers.slice(0, index);
    return {
      chain: chainId(below.map(({ diffId }) => diffId)),
      tree: async () => {
        const tree = new LayerTree(true);
        for (const number of below.keys()) {
          const { file, size } = await this.archive(number);
          await tree.apply(file, readArchive(file, size));
        }
        return tree;
      },
    };
  }

  async close(): Promise<void> {
    for (const archive of this.spooled)
      await archive?.then(
        ({ file }) => file.close(),
        () => undefined,
      );
  }

  private archive(index: number): Promise<SpooledArchive> {
    return (this.spooled[index] ??= this.openTar(index).then((tar) => spool(tar, this.directory, this.signal)));
  }
}
