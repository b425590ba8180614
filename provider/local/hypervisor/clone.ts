/** A machine that resumes a template instead of booting. */
import { chmod, copyFile, readFile, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import { machineFiles, templatePort } from "./qemu/command-line.js";
import { Qmp } from "./qemu/qmp.js";
import { loadState } from "./qemu/snapshot.js";
import { withPermanentState } from "./qemu/tpm-state.js";
import { connectUnix } from "./qemu/unix-socket.js";
import { releaseClone } from "./template-line.js";
import type { Template } from "./templates.js";

/** Gives a machine copies of what it will write to. The old content of the disk is lost: it held no known host. */
export async function copyTemplate(template: Template, folder: string, stateDisk: string): Promise<void> {
  await copyPrivately(template.stateDisk, stateDisk);
  await copyPrivately(template.firmwareVariables, join(folder, machineFiles.firmwareVariables));
}

async function copyPrivately(source: string, target: string): Promise<void> {
  await rm(`${target}.new`, { force: true });
  await copyFile(source, `${target}.new`);
  await chmod(`${target}.new`, 0o600);
  await rename(`${target}.new`, target);
}

/** Resumes the guest of a waiting QEMU as a host of its own, with the permanent state of its own TPM. */
export async function resumeClone(
  template: Template,
  folder: string,
  ownTpm: Buffer,
  signal: AbortSignal,
): Promise<void> {
  const state = withPermanentState(await readFile(template.state), ownTpm);
  await Qmp.session(join(folder, machineFiles.monitor), async (qmp) => {
    await loadState(qmp, folder, state, signal);
    const line = await connectUnix(join(folder, machineFiles.template), 5000, signal);
    try {
      await qmp.execute("cont");
      await releaseClone(line, signal);
    } finally {
      line.destroy();
    }
    // After a reboot the host must not wait again.
    await qmp.execute("device_del", { id: templatePort });
  });
}
