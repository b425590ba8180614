/** Digests of contents: https://github.com/opencontainers/image-spec/blob/main/descriptor.md#digests */
import { createHash } from "node:crypto";

export const digestPattern = /^sha256:[0-9a-f]{64}$/;

/** `sha256:<hex>` of a content. */
export function digestOf(content: string | Uint8Array): string {
  return `sha256:${createHash("sha256").update(content).digest("hex")}`;
}

/** The hexadecimal digits of a digest. */
export function hexOf(digest: string): string {
  return digest.slice("sha256:".length);
}
