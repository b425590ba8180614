/** The machine's TPM 2.0: swtpm, a process of its own. */
import { mkdir, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { spawnDetached, type NamedProcess } from "../../../system/process.js";
import { isAlive } from "../../../../shared/process-identity.js";
import { sleep } from "../../../../shared/sleep.js";

/** Control socket, relative to the machine's folder. */
export const tpmSocket = "tpm.sock";

/**
 * Starts the TPM of the machine in `folder`. Its state (`tpm/`) survives restarts. It ends by itself when QEMU ends.
 */
export async function startTpm(folder: string, signal?: AbortSignal): Promise<NamedProcess> {
  await mkdir(join(folder, "tpm"), { recursive: true, mode: 0o700 });
  const socket = join(folder, tpmSocket);
  await rm(socket, { force: true });
  const logFile = join(folder, "swtpm.log");
  const identity = await spawnDetached({
    name: "swtpm",
    file: "swtpm",
    args: [
      ...["socket", "--tpm2", "--tpmstate", "dir=tpm,mode=0600"],
      ...["--ctrl", `type=unixio,path=${tpmSocket},mode=0600`, "--terminate"],
    ],
    directory: folder,
    logFile,
  });
  for (let attempt = 0; attempt < 100; attempt++) {
    if (await stat(socket).catch(() => undefined)) return identity;
    if (!(await isAlive(identity))) break;
    await sleep(100, signal);
  }
  throw new Error(`swtpm did not start; its log is ${logFile}`);
}
