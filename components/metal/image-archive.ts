/** The host image as it is sent: compressed once, and kept in the cache by its digest. */
import { createHash } from "node:crypto";
import { createReadStream, createWriteStream } from "node:fs";
import { mkdir, mkdtemp, rename, rm, stat } from "node:fs/promises";
import path from "node:path";
import { pipeline } from "node:stream/promises";
import { Transform } from "node:stream";
import { createGzip } from "node:zlib";
import * as pulumi from "@pulumi/pulumi";
import { defaultCacheDirectory, defaultStateDirectory } from "../../shared/directories.js";

export interface ImageArchive {
  file: string;
  /** Bytes of the image. */
  size: number;
}

/**
 * Compresses an image.
 *
 * @param digest sha256:<hex>
 * @param image default: the image of this machine's store
 * @throws RunError when the image is not there or is another one
 */
export async function imageArchive(digest: string, image?: string): Promise<ImageArchive> {
  const hex = digest.replace("sha256:", "");
  const source = image ?? path.join(defaultStateDirectory(), "images", hex, "disk.raw");
  const size = await stat(source).then(
    (found) => found.size,
    (error: Error) => {
      throw new pulumi.RunError(
        `image ${digest}: ${error.message}; build it here with HostImage, or name its imageFile`,
      );
    },
  );
  const folder = path.join(defaultCacheDirectory(), "metal");
  const file = path.join(folder, `${hex}.gz`);
  if (await stat(file).catch(() => undefined)) return { file, size };
  await mkdir(folder, { recursive: true, mode: 0o700 });
  const work = await mkdtemp(path.join(folder, ".work-"));
  try {
    const hash = createHash("sha256");
    const hashing = new Transform({
      transform(chunk: Buffer, _encoding, done) {
        hash.update(chunk);
        done(null, chunk);
      },
    });
    const archive = path.join(work, "image.gz");
    const megabyte = { highWaterMark: 1 << 20 };
    await pipeline(createReadStream(source, megabyte), hashing, createGzip({ level: 3 }), createWriteStream(archive));
    const found = `sha256:${hash.digest("hex")}`;
    if (found !== digest) throw new pulumi.RunError(`imageFile ${source} is ${found}, not the image ${digest}`);
    await rename(archive, file);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
  return { file, size };
}
