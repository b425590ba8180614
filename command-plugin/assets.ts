/** Assets and archives as they are on the engine's wire (pulumi/sdk/go/common/resource/asset, archive). */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import path from "node:path";
import { pipeline } from "node:stream/promises";
import { signatureKey } from "../provider/protocol/marshal.js";
import type { Properties, Value } from "../provider/protocol/resource.js";
import { isRecord } from "../provider/schema/schema.js";

const assetSignature = "c44067f5952c0a294b673a41bacd8c17";
const archiveSignature = "0def7320c3a5731c473e5ecbe6d01bc7";

/** The source of a copy: a text, or a file or folder at a path of this machine. */
export type Source = { text: string } | { path: string };

/**
 * The source that an asset or archive names.
 * @throws Error for anything but a text and a path: archives made of parts, and addresses
 */
export function sourceOf(value: Value | undefined): Source {
  const kind = isRecord(value) ? value[signatureKey] : undefined;
  if (!isRecord(value) || (kind !== assetSignature && kind !== archiveSignature)) {
    throw new Error("source: is neither an asset nor an archive");
  }
  if (typeof value["path"] === "string" && value["path"] !== "") return { path: value["path"] };
  if (kind === assetSignature && typeof value["text"] === "string") return { text: value["text"] };
  throw new Error(
    "source: must be a FileAsset, a StringAsset or a FileArchive: what it is made of has to have a path here",
  );
}

async function fileAsset(file: string): Promise<Properties> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(file), hash);
  return { [signatureKey]: assetSignature, path: file, hash: hash.digest("hex") };
}

/** Assets of files, by their relative paths. */
export async function assetsOf(folder: string, files: string[]): Promise<Properties> {
  const assets: Properties = {};
  for (const file of files) assets[file] = await fileAsset(path.resolve(folder, file));
  return assets;
}

/** One archive of files. */
export async function archiveOf(folder: string, files: string[]): Promise<Properties> {
  const assets = await assetsOf(folder, files);
  const hash = createHash("sha256").update(JSON.stringify(files.map((file) => [file, assets[file]])));
  return { [signatureKey]: archiveSignature, assets, hash: hash.digest("hex") };
}
