/** A look into a TPM that no machine uses. */
import { spawn } from "node:child_process";
import { cpSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { once } from "node:events";
import { connectUnix } from "./unix-socket.js";

/**
 * TPM2_CreatePrimary in the endorsement hierarchy of a restricted P-256 decryption key (TPM 2.0 Library, Part 3, 24.1):
 * the same seed gives the same key.
 */
const createPrimary = Buffer.from(
  "80020000004300000131" + // sessions, 67 bytes, TPM_CC_CreatePrimary
    "4000000b" + // TPM_RH_ENDORSEMENT
    "00000009400000090000000000" + // an empty password
    "000400000000" + // no secret of ours
    "001a0023000b00030072000000060080004300100003001000000000" + // ECC, SHA-256, AES-128 CFB, no scheme, P-256
    "000000000000", // no outside information, no registers
  "hex",
);

/** Public part of the endorsement key of the TPM whose state is in `folder`, hex; the TPM itself is not touched. */
export async function endorsementKey(folder: string): Promise<string> {
  const work = mkdtempSync(join(tmpdir(), "palisade-tpm-"));
  cpSync(folder, join(work, "tpm"), { recursive: true });
  const args = ["socket", "--tpm2", "--tpmstate", "dir=tpm", "--server", "type=unixio,path=server.sock"];
  const tpm = spawn("swtpm", [...args, "--flags", "not-need-init,startup-clear"], { cwd: work, stdio: "ignore" });
  try {
    const socket = await connect(join(work, "server.sock"));
    socket.write(createPrimary);
    const [answer] = (await once(socket, "data")) as [Buffer];
    socket.destroy();
    if (answer.readUInt32BE(6) !== 0) throw new Error(`TPM2_CreatePrimary: 0x${answer.readUInt32BE(6).toString(16)}`);
    // Header, handle and the parameters' size come before it.
    return answer.subarray(18, 20 + answer.readUInt16BE(18)).toString("hex");
  } finally {
    tpm.kill("SIGKILL");
    rmSync(work, { recursive: true, force: true });
  }
}

async function connect(path: string) {
  for (let attempt = 0; ; attempt++) {
    try {
      return await connectUnix(path, 1000);
    } catch (error) {
      if (attempt === 50) throw error;
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
  }
}
