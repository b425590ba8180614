/** The user's files as a layer. */
import { createHash } from "node:crypto";
import { writeFile } from "node:fs/promises";
import { promisify } from "node:util";
import { gzip } from "node:zlib";
import { pack } from "tar-stream";
import { epoch, type Layer } from "./oci-layout.js";

/**
 * Writes the layer to `file`. Files belong to root, mode 0644, or 0755 when they begin with `#!` or as an ELF program.
 *
 * @param files absolute path → content.
 */
export async function fileLayer(files: Record<string, string | Buffer>, file: string): Promise<Layer> {
  const archive = pack();
  const chunks: Buffer[] = [];
  const read = (async () => {
    for await (const chunk of archive) chunks.push(chunk as Buffer);
  })();
  for (const path of Object.keys(files).sort()) {
    const content = files[path]!;
    const isProgram = ["#!", "\x7fELF"].some((magic) => content.slice(0, magic.length).toString() === magic);
    const mode = isProgram ? 0o755 : 0o644;
    archive.entry({ name: path.replace(/^\/+/, ""), mode, uid: 0, gid: 0, mtime: new Date(epoch * 1000) }, content);
  }
  archive.finalize();
  await read;
  const tar = Buffer.concat(chunks);
  const compressed = await promisify(gzip)(tar, { level: 6 });
  await writeFile(file, compressed, { mode: 0o600 });
  const digest = (data: Buffer) => `sha256:${createHash("sha256").update(data).digest("hex")}`;
  return { file, diffId: digest(tar), digest: digest(compressed), size: compressed.length };
}
