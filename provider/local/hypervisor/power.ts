/** Starting a machine's processes, and ending them in the least harmful way that works. */
import { randomUUID } from "node:crypto";
import { chmod, copyFile, mkdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import type { Operation } from "../../backends/index.js";
import { processOf } from "../../system/marker.js";
import { spawnDetached, terminate, waitForExit } from "../../system/process.js";
import { isAlive } from "../../../shared/process-identity.js";
import { lastLines } from "../../system/tail.js";
import { sleep } from "../../../shared/sleep.js";
import { imageDirectory } from "../host-images/store.js";
import { copyTemplate, resumeClone } from "./clone.js";
import type { HypervisorMarkers, VirtualMachineMarker } from "./markers.js";
import { commandLine, machineFiles } from "./qemu/command-line.js";
import type { Accelerator } from "./qemu/accelerator.js";
import { agentForward } from "./ports.js";
import { Qmp } from "./qemu/qmp.js";
import { startTpm } from "./qemu/tpm.js";
import { makeTpm } from "./qemu/tpm-state.js";
import type { Template } from "./templates.js";

/** OVMF with Secure Boot and system management mode, as Debian's package ovmf has it. */
export const firmware = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd";

/** A host that agreed to shut down takes this long at most: services stop and file systems are unmounted. */
const powerOffMilliseconds = 90_000;
const acpiMilliseconds = 30_000;

export class Power {
  constructor(private readonly markers: HypervisorMarkers) {}

  isRunning(marker: VirtualMachineMarker): Promise<boolean> {
    return isAlive(processOf(marker, "qemu"));
  }

  /** Path of one of the machine's files. */
  file(marker: VirtualMachineMarker, name: keyof typeof machineFiles): string {
    return join(this.markers.machines.folder(marker.id), machineFiles[name]);
  }

  monitor<T>(marker: VirtualMachineMarker, work: (qmp: Qmp) => Promise<T>, timeout?: number): Promise<T> {
    return Qmp.session(this.file(marker, "monitor"), work, timeout);
  }

  /**
   * Starts TPM and QEMU, and returns when QEMU's monitor answers; with a template, when its clone has become a host of
   * its own.
   */
  async start(
    op: Operation,
    marker: VirtualMachineMarker,
    accelerator: Accelerator,
    signal: AbortSignal,
    template?: Template,
  ): Promise<void> {
    const folder = this.markers.machines.folder(marker.id);
    const { imageDigest, stateDiskId, cpus, memoryMiB } = marker.spec;
    await stat(firmware).catch(() => {
      throw new Error(`the firmware ${firmware} is missing; install the package ovmf`);
    });
    await this.firmwareVariables(marker);
    if (template) {
      marker.details.unreleased = true;
      await this.markers.machines.write(marker);
      await copyTemplate(template, folder, this.markers.diskFile(stateDiskId));
    }
    for (const name of ["monitor", "enrollment", "template", "incoming"] as const)
      await rm(this.file(marker, name), { force: true });
    await terminate(processOf(marker, "swtpm"));
    const ownTpm = template && (await makeTpm(folder, signal));
    marker.processes = [await startTpm(folder, signal)];
    await this.markers.machines.write(marker);
    await op.checkpoint("tpm-started");

    const qemu = await spawnDetached({
      name: "qemu",
      file: "qemu-system-x86_64",
      args: commandLine({
        id: marker.id,
        generationId: randomUUID(),
        accelerator,
        cpus,
        memoryMiB,
        firmware,
        imageDisk: join(imageDirectory(this.markers.stateDirectory, imageDigest), "disk.raw"),
        stateDisk: this.markers.diskFile(stateDiskId),
        forwards: [agentForward(marker), ...marker.details.ports],
        ...(template ? { snapshot: { file: template.memory, use: "clone" as const } } : {}),
      }),
      directory: folder,
      logFile: this.file(marker, "qemuLog"),
    });
    marker.processes.push(qemu);
    marker.details.started = { imageDigest, stateDiskId, cpus, memoryMiB, accelerator };
    await this.markers.machines.write(marker);
    await op.checkpoint("qemu-started");
    await this.untilMonitorAnswers(marker, signal);
    if (!template || !ownTpm) return;
    await resumeClone(template, folder, ownTpm, signal);
    delete marker.details.unreleased;
    await this.markers.machines.write(marker);
  }

  /** Each machine has its own copy of the variables, because firmware writes to them; a new image has new ones. */
  private async firmwareVariables(marker: VirtualMachineMarker): Promise<void> {
    const path = this.file(marker, "firmwareVariables");
    const { imageDigest } = marker.spec;
    if (marker.details.variablesOf === imageDigest && (await stat(path).catch(() => undefined))) return;
    const source = join(imageDirectory(this.markers.stateDirectory, imageDigest), "OVMF_VARS.fd");
    await mkdir(this.markers.machines.folder(marker.id), { recursive: true, mode: 0o700 });
    await rm(`${path}.new`, { force: true });
    await copyFile(source, `${path}.new`);
    await chmod(`${path}.new`, 0o600);
    await rename(`${path}.new`, path);
    marker.details.variablesOf = imageDigest;
  }

  private async untilMonitorAnswers(marker: VirtualMachineMarker, signal: AbortSignal): Promise<void> {
    const end = Date.now() + 20_000;
    for (;;) {
      signal.throwIfAborted();
      try {
        await this.monitor(marker, (qmp) => qmp.execute("query-status"), 5000);
        return;
      } catch (error) {
        const alive = await this.isRunning(marker);
        if (alive && Date.now() < end) {
          await sleep(100, signal);
          continue;
        }
        const log = this.file(marker, "qemuLog");
        const what = alive ? `QEMU does not answer: ${(error as Error).message}` : "QEMU ended at its start";
        throw new Error(`${marker.id}: ${what}; last lines of ${log}:\n${await lastLines(log, 10)}`, { cause: error });
      }
    }
  }

  /**
   * Ends the machine: by its agent (`powerOff`, absent when it cannot be asked), then by the power button, then by
   * force. QEMU may hang at any of these steps.
   */
  async stop(
    op: Pick<Operation, "log" | "status">,
    marker: VirtualMachineMarker,
    signal: AbortSignal,
    powerOff?: () => Promise<void>,
  ): Promise<void> {
    const qemu = processOf(marker, "qemu");
    if (await isAlive(qemu)) {
      let ended = false;
      if (powerOff) {
        op.status("shutting the host down");
        try {
          await powerOff();
          ended = await waitForExit(qemu, powerOffMilliseconds, signal);
        } catch (error) {
          signal.throwIfAborted();
          op.log("debug", `${marker.id}: the agent did not shut it down: ${(error as Error).message}`);
        }
      }
      if (!ended) {
        op.status("pressing the machine's power button");
        try {
          await this.monitor(marker, (qmp) => qmp.execute("system_powerdown"), 5000);
          // Without an agent, there is rarely a system that listens.
          ended = await waitForExit(qemu, powerOff ? acpiMilliseconds : acpiMilliseconds / 3, signal);
        } catch {
          signal.throwIfAborted();
          // A hanging QEMU is ended by force below.
        }
      }
      if (!ended) {
        op.log("warning", `${marker.id}: the machine did not shut down in order; ending QEMU`);
        await terminate(qemu, 5000);
      }
    }
    await terminate(processOf(marker, "swtpm"), 5000);
    marker.processes = [];
    delete marker.details.started;
    delete marker.details.unreleased;
    await this.markers.machines.write(marker);
  }

  /** Ends QEMU at once, for a machine that hangs. */
  async kill(marker: VirtualMachineMarker): Promise<void> {
    await terminate(processOf(marker, "qemu"), 2000);
    await terminate(processOf(marker, "swtpm"), 2000);
    marker.processes = [];
    delete marker.details.unreleased;
    await this.markers.machines.write(marker);
  }
}
