/** Images from one repository into another, by digest: every blob is checked on its way. */
import { createHash } from "node:crypto";
import { createReadStream, createWriteStream } from "node:fs";
import { rm } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import { parseJson } from "../../../shared/decode.js";
import { hexOf } from "../registry/digest.js";
import { readDocument } from "../registry/documents.js";
import type { Descriptor, Repository } from "../registry/repository.js";

export interface ImageManifest {
  mediaType?: string;
  config: Descriptor;
  layers: Descriptor[];
  annotations?: Record<string, string>;
}

/** @throws when the repository does not have it. */
export async function readManifest(
  repository: Repository,
  reference: string,
): Promise<{ bytes: Buffer; mediaType: string; digest: string; manifest: ImageManifest }> {
  const content = await repository.manifest(reference);
  if (content === undefined) throw new Error(`digest: ${reference} is not in ${repository.server}/${repository.name}`);
  const place = `digest: ${reference} in ${repository.server}/${repository.name}`;
  const document = readDocument(content.bytes, place);
  if (document.kind !== "image") throw new Error(`${place}: is no single image`);
  // All fields, because they are written again.
  return { ...content, manifest: parseJson(content.bytes, place) as ImageManifest };
}

/**
 * Copies the blobs that a manifest names; the caller writes the manifest itself.
 *
 * @param folder for a blob during its transfer.
 */
export async function copyBlobs(
  from: Repository,
  to: Repository,
  { config, layers }: Pick<ImageManifest, "config" | "layers">,
  folder: string,
  signal: AbortSignal,
): Promise<void> {
  for (const { digest, size } of [...layers, config]) {
    if (await to.hasBlob(digest)) continue;
    const file = join(folder, `blob-${hexOf(digest)}`);
    try {
      const hash = createHash("sha256");
      const source = await from.openBlob(digest);
      const hashed = async function* (chunks: AsyncIterable<Buffer>) {
        for await (const chunk of chunks) {
          hash.update(chunk);
          yield chunk;
        }
      };
      await pipeline(source, hashed, createWriteStream(file, { mode: 0o600 }), { signal });
      const found = `sha256:${hash.digest("hex")}`;
      if (found !== digest)
        throw new Error(`registry: ${from.server}/${from.name} gives ${found} for the blob ${digest}`);
      await to.putBlob({ digest, size }, () => createReadStream(file, { highWaterMark: 1024 * 1024 }));
    } finally {
      await rm(file, { force: true });
    }
  }
}
