/**
 * Sealed layers of this machine: `<cache>/seals/<hash>/` with layer.erofs, layer.json and a signature for each layer key. The hash is
 * over the layer's tar and the versions of the tools. What nobody asked for in 30 days goes when the next layer is made.
 */
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rename, rm, stat, utimes } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import * as v from "valibot";
import { decode, object, unlessBroken } from "../../shared/decode.js";
import { isAbsent, readFileIfPresent, writeFileAtomic } from "../ownership/atomic-file.js";
import { withLock } from "../ownership/lock.js";
import { makeLayer, type SealedLayer } from "./layer.js";
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

  /** The layer with that tar; undefined when it was not sealed here with these tools. */
  async find(diffId: string): Promise<CachedLayer | undefined> {
    const folder = this.folderOf(diffId);
    const content = await readFileIfPresent(join(folder, "layer.json"));
    if (content === undefined) return undefined;
    const kept = await unlessBroken(async () => decode(layerSchema, content, join(folder, "layer.json")));
    // What was cut off, e.g. on a full disk, is as good as absent.
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

  /** Seals a layer, at most once also by concurrent runs. */
  async make(
    diffId: string,
    openTar: () => Promise<AsyncIterable<Buffer>>,
    signal?: AbortSignal,
  ): Promise<CachedLayer> {
    const folder = this.folderOf(diffId);
    await mkdir(this.folder, { recursive: true, mode: 0o700 });
    await this.prune();
    await withLock(join(this.folder, ".locks", basename(folder)), signal, async () => {
      if (await this.find(diffId)) return;
      // What killed calls left behind; the lock says that nobody works there.
      for (const name of await readdir(this.folder)) {
        if (name.startsWith(`.making-${basename(folder)}-`)) {
          await rm(join(this.folder, name), { recursive: true, force: true });
        }
      }
      const work = await mkdtemp(join(this.folder, `.making-${basename(folder)}-`));
      try {
        const layer = await makeLayer(this.tools, diffId, await openTar(), join(work, "layer.erofs"), work, signal);
        await writeFileAtomic(join(work, "layer.json"), JSON.stringify(layer));
        await rm(folder, { recursive: true, force: true });
        await rename(work, folder);
      } finally {
        await rm(work, { recursive: true, force: true });
      }
    });
    return (await this.find(diffId))!;
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
  async forget(diffId: string): Promise<void> {
    await rm(this.folderOf(diffId), { recursive: true, force: true });
  }

  private async prune(): Promise<void> {
    for (const name of await readdir(this.folder)) {
      const used = await stat(join(this.folder, name, "layer.erofs")).catch(() => undefined);
      if (used && Date.now() - used.mtimeMs > unusedMs) {
        await rm(join(this.folder, name), { recursive: true, force: true });
      }
    }
  }

  private folderOf(diffId: string): string {
    const inputs = JSON.stringify([diffId, this.tools.versions]);
    return join(this.folder, createHash("sha256").update(inputs).digest("hex"));
  }
}
