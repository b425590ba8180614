/**
 * A layer as a read-only file system with its own proof: EROFS, followed by a dm-verity superblock and hash tree. The
 * same tar, over the same layers where it depends on them, gives the same bytes on every machine that has the same
 * tools. https://erofs.docs.kernel.org/en/latest/mkfs.html, https://gitlab.com/cryptsetup/cryptsetup/-/wikis/DMVerity
 */
import { createHash, type Hash } from "node:crypto";
import { createReadStream } from "node:fs";
import { stat, truncate } from "node:fs/promises";
import { pipeline } from "node:stream/promises";
import { ArchiveError, readArchive } from "./layer-archive.js";
import { writeArchive } from "./layer-tar.js";
import { BelowNeeded, LayerTree, type Change } from "./layer-tree.js";
import { nothingBelow, spool, type LayersBelow, type SpooledArchive } from "./layers-below.js";
import type { SealTools } from "./tools.js";

const blockSize = 4096;

/** Of a layer's files together, bytes. Hosts take no larger layer (`maximumBlobSize` in hosts/seal/manifest.go). */
const maximumContent = 64 * 1024 ** 3;

/** A sealed layer without its signature. */
export interface SealedLayer {
  /** Digest of the layer's tar. */
  diffId: string;
  /** Of the hash tree, 64 hexadecimal digits. */
  rootHash: string;
  /** Where the verity superblock is, bytes; the file system is before it. */
  hashOffset: number;
  /** Of the whole blob, bytes. */
  size: number;
  /** Digest of the blob. */
  blob: string;
  /** Chain ID of the layers below, when the result depends on their content; then it is valid over them only. */
  over?: string;
}

/** A UUID (RFC 9562, version 8: made by a method of our own) that depends on the name only. */
function uuid(name: string): string {
  const bytes = createHash("sha256").update(name).digest().subarray(0, 16);
  bytes[6] = (bytes[6]! & 0x0f) | 0x80;
  bytes[8] = (bytes[8]! & 0x3f) | 0x80;
  return bytes.toString("hex").replace(/(.{8})(.{4})(.{4})(.{4})(.{12})/, "$1-$2-$3-$4-$5");
}

/**
 * Writes a layer's blob. The archive is read to its end before anything is made of it.
 *
 * @param tar the layer's tar; when it ends in an error, so does the call.
 * @param file gets the blob; must not be there.
 * @param directory for temporary files: the tar, and the input of mkfs.erofs.
 * @param below the image's layers below; default none.
 * @throws when the archive is cut off, or holds what containerd would not unpack either; the error names the layer and
 * the entry.
 */
export async function makeLayer(
  tools: SealTools,
  diffId: string,
  tar: AsyncIterable<Buffer>,
  file: string,
  directory: string,
  signal?: AbortSignal,
  below: LayersBelow = nothingBelow,
): Promise<SealedLayer> {
  const archive = await spool(tar, directory, signal);
  try {
    const { changes, over } = await readChanges(diffId, archive, below);
    const made = await makeBlob(tools, diffId, changes, file, directory, signal);
    return { ...made, ...(over === undefined ? {} : { over }) };
  } finally {
    await archive.file.close();
  }
}

/** The changes of the layer; with the chain ID of the layers below when they depend on them. */
async function readChanges(
  diffId: string,
  { file, size }: SpooledArchive,
  below: LayersBelow,
): Promise<{ changes: Change[]; over?: string }> {
  const read = async (tree: LayerTree) => {
    await tree.apply(file, readArchive(file, size));
    const changes = tree.changes();
    const content = changes.reduce((sum, change) => sum + (change.content?.size ?? 0), 0);
    if (content > maximumContent) {
      throw new ArchiveError(`its files have ${content} bytes, more than the ${maximumContent} that hosts take`);
    }
    return changes;
  };
  try {
    try {
      return { changes: await read(new LayerTree(false)) };
    } catch (error) {
      if (!(error instanceof BelowNeeded)) throw error;
    }
    return { changes: await read(await below.tree()), over: below.chain };
  } catch (error) {
    if (!(error instanceof ArchiveError)) throw error;
    throw new Error(`layer ${diffId} cannot be sealed: ${error.message}; build the image anew`, { cause: error });
  }
}

async function makeBlob(
  tools: SealTools,
  diffId: string,
  changes: Change[],
  file: string,
  directory: string,
  signal?: AbortSignal,
): Promise<SealedLayer> {
  const options = {
    directory,
    environment: { TMPDIR: directory },
    diesWithUs: true,
    ...(signal === undefined ? {} : { signal }),
  };
  await tools.run(
    "mkfs.erofs",
    [
      ...["--tar=f", "--aufs", "--quiet", "-Enoinline_data", `-b${blockSize}`, "-zlz4"],
      // The times of the tar stay; the time of the build would differ each time.
      ...["-T0", "--mkfs-time", `-U${uuid(`palisade-layer-erofs:${diffId}`)}`, file],
    ],
    { ...options, input: writeArchive(changes) },
  );
  const hashOffset = Math.ceil((await stat(file)).size / blockSize) * blockSize;
  await truncate(file, hashOffset);
  const salt = createHash("sha256").update(`palisade-layer-salt:${diffId}`).digest("hex");
  const hash = createHash("sha256");
  // veritysetup only appends, so the content before the tree is hashed at the same time.
  const [output] = await Promise.all([
    tools.run(
      "veritysetup",
      [
        ...[
          "format",
          "--hash=sha256",
          "--format=1",
          `--data-block-size=${blockSize}`,
          `--hash-block-size=${blockSize}`,
        ],
        ...[`--data-blocks=${hashOffset / blockSize}`, `--hash-offset=${hashOffset}`, `--salt=${salt}`],
        ...[`--uuid=${uuid(`palisade-layer-verity:${diffId}`)}`, file, file],
      ],
      options,
    ),
    addFile(hash, file, { start: 0, end: hashOffset - 1 }, signal),
  ]);
  const rootHash = /^Root hash:\s+([0-9a-f]{64})$/m.exec(output)?.[1];
  if (rootHash === undefined) throw new Error(`veritysetup told no root hash for layer ${diffId}: ${output}`);
  await addFile(hash, file, { start: hashOffset }, signal);
  return { diffId, rootHash, hashOffset, size: (await stat(file)).size, blob: `sha256:${hash.digest("hex")}` };
}

async function addFile(
  hash: Hash,
  file: string,
  range: { start: number; end?: number },
  signal: AbortSignal | undefined,
): Promise<void> {
  const source = createReadStream(file, { ...range, highWaterMark: 1024 * 1024 });
  await pipeline(
    source,
    async (chunks: AsyncIterable<Buffer>) => {
      for await (const chunk of chunks) hash.update(chunk);
    },
    signal === undefined ? {} : { signal },
  );
}
