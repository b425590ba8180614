/** What every step of a sealing needs: who signs, by which tools, and until when. */
import type { SigningKey } from "../../backends/index.js";
import { openSigner, type Signer } from "./signer.js";
import { sealTools, type SealTools } from "./tools.js";

export interface Sealing {
  tools: SealTools;
  /** For the kernel: root hashes of layers. */
  layerSigner: Signer;
  layerCertificateFile: string;
  /** For hosts: which layers an image has. */
  sealSigner: Signer;
  cacheDirectory: string;
  /** Shows the present step; a line replaces the one before. */
  status(message: string): void;
  /** Logs a line that stays. */
  log(severity: "info" | "warning", message: string): void;
  signal?: AbortSignal;
}

/**
 * Finds the tools and opens the signers.
 *
 * @param options.tools default: those of this machine, see `sealTools`.
 * @throws PropertyError when a signer's files are not as they should be.
 */
export async function openSealing(
  keys: { layerSigner: SigningKey; sealSigner: SigningKey },
  options: Omit<Sealing, "tools" | "layerSigner" | "layerCertificateFile" | "sealSigner"> & { tools?: SealTools },
): Promise<Sealing> {
  const { cacheDirectory, signal, status } = options;
  const tools = options.tools ?? (await sealTools(cacheDirectory, signal, (message) => status(message)));
  return {
    ...options,
    tools,
    layerSigner: await openSigner("layerSigner", keys.layerSigner, tools, options.signal),
    layerCertificateFile: keys.layerSigner.certificateFile,
    sealSigner: await openSigner("sealSigner", keys.sealSigner, tools, options.signal),
  };
}
