/**
 * Sealed layers of this machine: `<cache>/seals/<hash>/` with layer.erofs, layer.json and a signature for each layer
 * key. The hash is over the layer's tar and the versions of the tools; when the layers below are part of the result,
 * their chain ID follows the hash. A layer that was not requested for 30 days is removed when the next layer is made.
 */
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rename, rm, stat, utimes } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import * as v from "valibot";
import { decode, object, unlessBroken } from "../../../shared/decode.js";
import { isAbsent, readDirectoryIfPresent, readFileIfPresent, writeFileAtomic } from "../../system/atomic-file.js";
import { withLock } from "../../system/lock.js";
import { hexOf } from "../registry/digest.js";
import { makeLayer, type SealedLayer } from "./layer.js";
import { nothingBelow, type LayersBelow } from "./layers-below.js";
import { signRootHash } from "./root-hash-signature.js";
import type { Signer } from "./signer.js";
import type { SealTools } from "./tools.js";

/** After how long without use a layer is removed; longer than any call lasts that may still read it. */
const unusedMs = 30 * 24 * 60 * 60 * 1000;

const layerSchema = object({
  diffId: v.string(),
  rootHash: v.string(),
  hashOffset: v.number(),
  size: v.number(),
  blob: v.string(),
}) satisfies v.GenericSchema<unknown, SealedLayer>;

/** A sealed layer whose blob is a file of this machine. */
export interface CachedLayer extends SealedLayer {
  file: string;
}

export class LayerCache {
  private readonly folder: string;

  constructor(
    cacheDirectory: string,
    private readonly tools: SealTools,
  ) {
    this.folder = join(cacheDirectory, "seals");
  }

  /**
   * The layer with that tar; undefined when it was not sealed here with these tools.
   *
   * @param over chain ID of the layers below; default: any.
   */
  async find(diffId: string, over?: string): Promise<CachedLayer | undefined> {
    const folder = this.folderOf(diffId);
    const folders = over === undefined ? await this.foldersOf(diffId) : [folder, this.folderOf(diffId, over)];
    for (const each of folders) {
      const layer = await this.read(each);
      if (layer && (over === undefined || layer.over === undefined || layer.over === over)) return layer;
    }
    return undefined;
  }

  private async read(folder: string): Promise<CachedLayer | undefined> {
    const content = await readFileIfPresent(join(folder, "layer.json"));
    if (content === undefined) return undefined;
    const kept = await unlessBroken(async () => decode(layerSchema, content, join(folder, "layer.json")));
    // A layer that was cut off, e.g. on a full disk, counts as absent.
    if (kept === undefined) return undefined;
    const layer = { ...kept, file: join(folder, "layer.erofs") };
    const size = await stat(layer.file).then(
      (found) => found.size,
      () => undefined,
    );
    if (size !== layer.size) return undefined;
    const now = new Date();
    await utimes(layer.file, now, now);
    return layer;
  }

  /**
   * Seals a layer, at most once also by concurrent runs.
   *
   * @param below the image's layers below; default none.
   */
  async make(
    diffId: string,
    openTar: () => Promise<AsyncIterable<Buffer>>,
    signal?: AbortSignal,
    below: LayersBelow = nothingBelow,
  ): Promise<CachedLayer> {
    const name = basename(this.folderOf(diffId));
    await mkdir(this.folder, { recursive: true, mode: 0o700 });
    await this.prune();
    await withLock(join(this.folder, ".locks", name), signal, async () => {
      if (await this.find(diffId, below.chain)) return;
      // What killed calls left behind: while the lock is held, no other call works there.
      for (const left of await readdir(this.folder)) {
        if (left.startsWith(`.making-${name}-`)) {
          await rm(join(this.folder, left), { recursive: true, force: true });
        }
      }
      const work = await mkdtemp(join(this.folder, `.making-${name}-`));
      try {
        const tar = await openTar();
        const layer = await makeLayer(this.tools, diffId, tar, join(work, "layer.erofs"), work, signal, below);
        await writeFileAtomic(join(work, "layer.json"), JSON.stringify(layer));
        const folder = this.folderOf(diffId, layer.over);
        await rm(folder, { recursive: true, force: true });
        await rename(work, folder);
      } finally {
        await rm(work, { recursive: true, force: true });
      }
    });
    return (await this.find(diffId, below.chain))!;
  }

  /** The signature over a cached layer's root hash, made at most once per key. */
  async signature(layer: CachedLayer, signer: Signer): Promise<Buffer> {
    const file = join(dirname(layer.file), `${signer.certificateHash}.p7s`);
    try {
      return await readFile(file);
    } catch (error) {
      if (!isAbsent(error)) throw error;
    }
    const signature = await signRootHash(signer, layer.rootHash);
    await writeFileAtomic(file, signature);
    return signature;
  }

  /** Removes a layer whose blob turned out to be damaged. */
  async forget({ file }: CachedLayer): Promise<void> {
    await rm(dirname(file), { recursive: true, force: true });
  }

  private async prune(): Promise<void> {
    for (const name of await readdir(this.folder)) {
      const used = await stat(join(this.folder, name, "layer.erofs")).catch(() => undefined);
      if (used && Date.now() - used.mtimeMs > unusedMs) {
        await rm(join(this.folder, name), { recursive: true, force: true });
      }
    }
  }

  private folderOf(diffId: string, over?: string): string {
    const hash = (value: unknown) => createHash("sha256").update(JSON.stringify(value)).digest("hex");
    const folder = join(this.folder, hash([diffId, this.tools.versions]));
    return over === undefined ? folder : `${folder}-${hexOf(over).slice(0, 32)}`;
  }

  /** The folders of a layer, over any layers below. */
  private async foldersOf(diffId: string): Promise<string[]> {
    const name = basename(this.folderOf(diffId));
    const all = await readDirectoryIfPresent(this.folder);
    return all.filter((each) => each.startsWith(name)).map((each) => join(this.folder, each));
  }
}
