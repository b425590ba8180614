/**
 * Images in an archive: an OCI image layout in a tar.
 * https://github.com/opencontainers/image-spec/blob/main/image-layout.md
 */
import { createReadStream, createWriteStream } from "node:fs";
import { mkdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Readable } from "node:stream";
import { pipeline } from "node:stream/promises";
import { extract } from "tar-stream";
import { isAbsent } from "../../system/atomic-file.js";
import { digestOf, hexOf } from "../registry/digest.js";
import { readDocument } from "../registry/documents.js";
import type { ManifestContent } from "../registry/repository.js";
import type { ImageSource } from "./image.js";

/** Files of a layout; other files of an archive are not unpacked. */
const layoutFile = /^(\.\/)?(index\.json|oci-layout|blobs\/sha256\/[0-9a-f]{64})$/;

/** Unpacks an archive's layout into a folder. */
export async function unpackArchive(archive: string, folder: string, signal?: AbortSignal): Promise<ImageLayout> {
  await mkdir(join(folder, "blobs/sha256"), { recursive: true });
  const unpack = extract();
  const options = signal === undefined ? {} : { signal };
  const unpacked = (async () => {
    for await (const entry of unpack) {
      if (entry.header.type === "file" && layoutFile.test(entry.header.name)) {
        await pipeline(entry, createWriteStream(join(folder, entry.header.name)));
      } else entry.resume();
    }
  })();
  await Promise.all([pipeline(createReadStream(archive), unpack, options), unpacked]);
  return new ImageLayout(folder, archive);
}

/** A layout in a folder. */
export class ImageLayout implements ImageSource {
  constructor(
    private readonly folder: string,
    readonly name: string,
  ) {}

  /** Digests of the entries of the layout's index. */
  async digests(): Promise<string[]> {
    const place = `${this.name}: index.json`;
    const index = readDocument(await readFile(join(this.folder, "index.json")), place);
    if (index.kind !== "index") throw new Error(`${place}: is no index of images`);
    return index.manifests.map(({ digest }) => digest);
  }

  async manifest(digest: string): Promise<ManifestContent | undefined> {
    try {
      const bytes = await readFile(this.path(digest));
      // The media type is in the manifest; a layout has no other place for it.
      return { bytes, digest: digestOf(bytes), mediaType: "" };
    } catch (error) {
      if (isAbsent(error)) return undefined;
      throw error;
    }
  }

  async blob(digest: string): Promise<Buffer> {
    const content = await readFile(this.path(digest));
    if (digestOf(content) !== digest)
      throw new Error(`${this.name}: blob ${digest} has the digest ${digestOf(content)}`);
    return content;
  }

  async openBlob(digest: string): Promise<Readable> {
    return createReadStream(this.path(digest), { highWaterMark: 1024 * 1024 });
  }

  private path(digest: string): string {
    return join(this.folder, "blobs/sha256", hexOf(digest));
  }
}
