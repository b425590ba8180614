/**
 * Signatures of root hashes as the kernel's dm-verity takes them: PKCS#7 over the root hash as 64 lower-case
 * hexadecimal digits.
 * https://docs.kernel.org/admin-guide/device-mapper/verity.html
 */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { CommandError } from "../../system/command.js";
import type { Signer } from "./signer.js";
import type { SealTools } from "./tools.js";

export async function signRootHash(signer: Signer, rootHash: string): Promise<Buffer> {
  return signer.signDetached(Buffer.from(rootHash));
}

/** Whether a signature over a root hash is the layer signer's. */
export async function isRootHashSignature(
  tools: SealTools,
  certificateFile: string,
  rootHash: string,
  signature: Buffer,
): Promise<boolean> {
  const folder = await mkdtemp(join(tmpdir(), "palisade-verify-"));
  try {
    const [content, file] = [join(folder, "root-hash"), join(folder, "signature")];
    await writeFile(content, rootHash);
    await writeFile(file, signature);
    await tools.run(
      "openssl",
      [
        ...["smime", "-verify", "-binary", "-inform", "der", "-in", file, "-content", content, "-out", "/dev/null"],
        // This certificate and no other, by itself: neither those in the signature nor an authority count.
        ...["-certfile", certificateFile, "-nointern", "-noverify"],
      ],
      { environment: { OPENSSL_CONF: "/dev/null" } },
    );
    return true;
  } catch (error) {
    if (error instanceof CommandError) return false;
    throw error;
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}
