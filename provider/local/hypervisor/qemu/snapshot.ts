/** A machine's state, saved and loaded. Its memory is in a separate file (`SnapshotMemory`). */
import type { Socket } from "node:net";
import { join } from "node:path";
import { finished } from "node:stream/promises";
import { sleep } from "../../../../shared/sleep.js";
import { machineFiles } from "./command-line.js";
import type { Qmp } from "./qmp.js";
import { connectUnix } from "./unix-socket.js";

/** For a few megabytes of device state; a busy machine is slow. */
const saveMilliseconds = 60_000;
const resumeMilliseconds = 30_000;

interface Migration {
  status?: string;
  "error-desc"?: string;
}

/** Stops the guest and writes the state of its devices into `file` of QEMU's folder. */
export async function saveState(qmp: Qmp, file: string, signal: AbortSignal): Promise<void> {
  await qmp.execute("stop");
  await excludeMemory(qmp);
  await qmp.execute("migrate", { uri: `exec:cat >${file}` });
  await untilMigrated(qmp, saveMilliseconds, signal);
}

/** Gives a machine that was started with `-incoming defer` its state; the guest stays stopped. */
export async function loadState(qmp: Qmp, folder: string, state: Buffer, signal: AbortSignal): Promise<void> {
  await excludeMemory(qmp);
  await qmp.execute("migrate-incoming", { uri: `unix:${machineFiles.incoming}` });
  const socket: Socket = await connectUnix(join(folder, machineFiles.incoming), 5000, signal);
  try {
    socket.end(state);
    await finished(socket, { readable: false, signal });
    await untilMigrated(qmp, resumeMilliseconds, signal);
  } finally {
    socket.destroy();
  }
}

async function excludeMemory(qmp: Qmp): Promise<void> {
  await qmp.execute("migrate-set-capabilities", { capabilities: [{ capability: "x-ignore-shared", state: true }] });
}

async function untilMigrated(qmp: Qmp, milliseconds: number, signal: AbortSignal): Promise<void> {
  const end = Date.now() + milliseconds;
  for (;;) {
    const { status, "error-desc": error } = await qmp.execute<Migration>("query-migrate");
    if (status === "completed") return;
    if (status === "failed" || Date.now() > end) {
      throw new Error(`QEMU did not move the machine's state: ${error ?? status ?? "not begun"}`);
    }
    await sleep(20, signal);
  }
}
