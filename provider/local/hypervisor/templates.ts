/**
 * Templates: machines that were stopped just before they became hosts, kept by content in the cache. A clone resumes
 * from there within seconds. docs/decisions/0015-ephemeral-hosts.md says what clones share and what they do not.
 */
import { createHash, randomUUID } from "node:crypto";
import { chmod, copyFile, mkdir, readdir, rename, rm, stat, utimes } from "node:fs/promises";
import { join } from "node:path";
import { run } from "../../system/command.js";
import { withLock } from "../../system/lock.js";
import { processesIn, terminate } from "../../system/process.js";
import { lastLines } from "../../system/tail.js";
import { sleep } from "../../../shared/sleep.js";
import type { Operation } from "../../backends/index.js";
import { digestOfFile, imageDirectory } from "../host-images/store.js";
import { firmware } from "./power.js";
import type { Accelerator } from "./qemu/accelerator.js";
import { commandLine, machineFiles } from "./qemu/command-line.js";
import { createDisk } from "./qemu/disk-image.js";
import { Qmp } from "./qemu/qmp.js";
import { saveState } from "./qemu/snapshot.js";
import { startTpm } from "./qemu/tpm.js";
import { connectUnix } from "./qemu/unix-socket.js";
import { SerialConsole } from "./serial-console.js";
import { listenToTemplate } from "./template-line.js";

/** Version of the files below; another layout is another template. */
const format = 1;
/** Templates take half a gigabyte each; the ones that were used last stay. */
const keptTemplates = 3;
/** How often a boot that fails is started again: emulated guests hang now and then. */
const attempts = 3;

/** Files of a template. */
const files = {
  memory: "memory",
  state: "state",
  stateDisk: "disk.qcow2",
  firmwareVariables: machineFiles.firmwareVariables,
} as const;

/** What decides the content of a template: all that the guest sees of its machine. */
export interface Shape {
  imageDigest: string;
  cpus: number;
  memoryMiB: number;
  stateDiskGiB: number;
  accelerator: Accelerator;
}

/** Paths of a template's files. They are never changed, as clones map them. */
export type Template = Record<keyof typeof files, string>;

export class Templates {
  private readonly directory: string;

  constructor(
    private readonly stateDirectory: string,
    cacheDirectory: string,
  ) {
    this.directory = join(cacheDirectory, "templates");
  }

  /** Takes the template of a shape from the cache, or boots one and keeps it there. Calls for the same shape wait. */
  async prepare(op: Operation, shape: Shape, stallMilliseconds: number, signal: AbortSignal): Promise<Template> {
    const name = await this.nameOf(shape);
    const folder = join(this.directory, name);
    await mkdir(this.directory, { recursive: true, mode: 0o700 });
    // Another call may be booting it.
    op.status("waiting for the template of this image and size");
    return withLock(join(this.directory, ".locks", name), signal, async () => {
      if (!(await stat(folder).catch(() => undefined))) {
        for (let attempt = 1; ; attempt++) {
          try {
            await this.build(op, shape, folder, stallMilliseconds, signal);
            break;
          } catch (error) {
            signal.throwIfAborted();
            if (!(error instanceof TemplateBootError) || attempt === attempts) throw error;
            op.log("warning", `${error.message}\nBooting the template again (${attempt} of ${attempts - 1})`);
          }
        }
        await this.removeOldest();
      }
      await utimes(folder, new Date(), new Date());
      return Object.fromEntries(
        Object.entries(files).map(([what, file]) => [what, join(folder, file)]),
      ) as unknown as Template;
    });
  }

  private async nameOf(shape: Shape): Promise<string> {
    const version = async (program: string) => (await run(program, ["--version"])).split("\n")[0];
    const programs = [await version("qemu-system-x86_64"), await version("swtpm"), await digestOfFile(firmware)];
    const content = JSON.stringify([format, shape, ...programs]);
    return createHash("sha256").update(content).digest("hex").slice(0, 32);
  }

  private async build(
    op: Operation,
    shape: Shape,
    folder: string,
    stallMilliseconds: number,
    signal: AbortSignal,
  ): Promise<void> {
    const work = `${folder}.new`;
    const image = imageDirectory(this.stateDirectory, shape.imageDigest);
    await rm(work, { recursive: true, force: true });
    await mkdir(work, { mode: 0o700 });
    const controller = new AbortController();
    const stop = () => controller.abort(signal.reason);
    signal.addEventListener("abort", stop, { once: true });
    let ended: Promise<unknown> | undefined;
    try {
      await createDisk(join(work, files.stateDisk), shape.stateDiskGiB, signal);
      await copyFile(join(image, "OVMF_VARS.fd"), join(work, files.firmwareVariables));
      await chmod(join(work, files.firmwareVariables), 0o600);
      await startTpm(work, signal);
      // It dies with this process, so that a killed build leaves no machine behind.
      const qemu = run(
        "qemu-system-x86_64",
        commandLine({
          id: "template",
          generationId: randomUUID(),
          accelerator: shape.accelerator,
          cpus: shape.cpus,
          memoryMiB: shape.memoryMiB,
          firmware,
          imageDisk: join(image, "disk.raw"),
          stateDisk: files.stateDisk,
          forwards: [],
          snapshot: { file: files.memory, use: "keep" },
        }),
        { directory: work, logFile: join(work, machineFiles.qemuLog), diesWithUs: true, signal: controller.signal },
      );
      ended = qemu.catch((error: unknown) => error);
      await this.untilWaiting(op, work, ended, stallMilliseconds, signal);
      op.status("keeping the template");
      const monitor = await Qmp.connect(join(work, machineFiles.monitor), 10_000, signal);
      try {
        await saveState(monitor, files.state, signal);
        await monitor.execute("quit");
      } finally {
        monitor.close();
      }
      await qemu;
      await chmod(join(work, files.state), 0o400);
      await rename(work, folder);
    } finally {
      signal.removeEventListener("abort", stop);
      controller.abort(new Error("the template is not built any more"));
      await ended;
      for (const tpm of await processesIn(work, "swtpm", "swtpm").catch(() => [])) await terminate(tpm, 1000);
      await rm(work, { recursive: true, force: true });
    }
  }

  /** Returns when the guest reports that everything but its identity is up. */
  private async untilWaiting(
    op: Operation,
    work: string,
    ended: Promise<unknown>,
    stallMilliseconds: number,
    signal: AbortSignal,
  ): Promise<void> {
    const serialLog = join(work, machineFiles.serialLog);
    const started = Date.now();
    let phase = "starting";
    let ready = false;
    let lastSign = Date.now();
    const serial = new SerialConsole(serialLog);
    let isOver = false;
    void ended.then(() => (isOver = true));
    const fail = async (what: string) =>
      new TemplateBootError(
        `the template ${what}\nLast lines of its serial console:\n${await lastLines(serialLog, 15)}\n` +
          (await lastLines(join(work, machineFiles.qemuLog), 5)),
      );
    let socket: Awaited<ReturnType<typeof connectUnix>> | undefined;
    try {
      while (!ready) {
        signal.throwIfAborted();
        if (isOver) throw await fail("ended while it booted");
        if (!socket) {
          socket = await connectUnix(join(work, machineFiles.template), 2000, signal).catch(() => undefined);
          if (socket) {
            listenToTemplate(socket, (waiting) => {
              phase = waiting.ready ? "ready to be kept" : `waits: ${waiting.readyMessage}`;
              lastSign = Date.now();
              ready = waiting.ready;
            });
          }
        }
        const console = await serial.read();
        if (console) {
          lastSign = Date.now();
          phase = console.phase ?? phase;
          // An image that is older than templates does not stop.
          if (/role=api/.test(console.text)) throw new Error("the host image knows no templates; build it anew");
        }
        op.status(`booting a template, once for this image: ${phase} (${Math.round((Date.now() - started) / 1000)} s)`);
        if (Date.now() - lastSign > stallMilliseconds) throw await fail("gave no sign of life for too long");
        await sleep(200, signal);
      }
    } finally {
      socket?.destroy();
    }
  }

  private async removeOldest(): Promise<void> {
    const names = (await readdir(this.directory)).filter((name) => /^[0-9a-f]{32}$/.test(name));
    const used = await Promise.all(
      names.map(async (name) => ({ name, at: (await stat(join(this.directory, name))).mtimeMs })),
    );
    used.sort((a, b) => b.at - a.at);
    for (const { name } of used.slice(keptTemplates)) await rm(join(this.directory, name), { recursive: true });
  }
}

/** The template did not boot; another attempt may. */
class TemplateBootError extends Error {
  override readonly name = "TemplateBootError";
}
