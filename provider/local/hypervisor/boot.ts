/** Watches a machine boot until its agent reports that the host is ready. */
import { setTimeout as delay } from "node:timers/promises";
import type { GetHostResponse } from "../../../hosts/api/gen/palisade/agent/v1/agent_pb.js";
import { ForeignHostError, type Operation } from "../../backends/index.js";
import { lastLines } from "../../system/tail.js";
import { sleep } from "../../../shared/sleep.js";
import { EnrollmentServer, type EnrollmentOptions } from "./enrollment.js";
import { connectUnix } from "./qemu/unix-socket.js";
import { SerialConsole } from "./serial-console.js";

/** Nothing has happened for too long: no console output, no answer. */
export class StalledBootError extends Error {
  override readonly name = "StalledBootError";
}

/** What is needed of a machine to watch its boot. */
export interface BootingMachine {
  id: string;
  serialLog: string;
  /** Size of the serial log before this start. */
  serialOffset: number;
  qemuLog: string;
  enrollmentSocket: string;
  enrollment: EnrollmentOptions;
  /** Milliseconds without any sign of life after which the boot counts as stalled. */
  stallMilliseconds: number;
  isRunning(): Promise<boolean>;
  /** The agent's answer; undefined while the host is not known yet. Rejects while it does not answer. */
  askAgent(): Promise<GetHostResponse | undefined>;
}

/** A boot takes at most this long, milliseconds: the time that the creation of a machine has. */
const longestBoot = 900_000;
/** The same for a reboot from inside, which only the console shows; a console may also be busy for other reasons. */
const longestRestart = 120_000;
/** A host that reboots from inside writes to its console at least this often, milliseconds. */
const consoleInterval = 30_000;

/** What is known of a running machine whose agent does not answer; times in milliseconds. */
export interface SignsOfBoot {
  /** Since QEMU was started. */
  age: number;
  /** Since the console was written to. */
  silence: number;
  /** Whether the host has been ready since that start. */
  hasBooted: boolean;
  /** Silence after which a boot counts as stalled. */
  stall: number;
}

/**
 * How long to wait for a host that does not answer because it boots, in milliseconds from the first failed call; 0 when
 * it does not boot.
 */
export function bootPatience({ age, silence, hasBooted, stall }: SignsOfBoot): number {
  // The start itself is a sign of life.
  if (!hasBooted && age < longestBoot && Math.min(age, silence) < stall) return longestBoot;
  return silence < consoleInterval ? longestRestart : 0;
}

/** Lines of the console that an error carries. */
const errorLines = 15;

/**
 * Returns when the agent is ready.
 *
 * @throws StalledBootError, and an error when QEMU ended or the time is over, each with the last lines of the console
 * and the path of its log; ForeignHostError when another host answers.
 */
export async function untilReady(
  op: Operation,
  machine: BootingMachine,
  signal: AbortSignal,
): Promise<GetHostResponse> {
  const started = Date.now();
  const seconds = () => Math.round((Date.now() - started) / 1000);
  let lastSign = Date.now();
  const serial = new SerialConsole(machine.serialLog, machine.serialOffset);
  let phase = "starting";
  let message = "";
  const enrollment = new EnrollmentConnection(machine, () => {
    phase = "first contact";
    lastSign = Date.now();
  });
  try {
    for (;;) {
      signal.throwIfAborted();
      if (!(await machine.isRunning())) throw await failure(machine, "QEMU ended while the host booted");
      await enrollment.connect(signal);

      const console = await serial.read();
      if (console) {
        lastSign = Date.now();
        phase = console.phase ?? phase;
      }
      const host = await machine.askAgent().catch((error: unknown) => {
        if (error instanceof ForeignHostError) throw error;
        return undefined;
      });
      if (host?.ready) return host;
      if (host && host.readyMessage !== message) {
        message = host.readyMessage;
        lastSign = Date.now();
      }
      op.status(`${host ? `agent: ${message || "not ready yet"}` : `booting: ${phase}`} (${seconds()} s)`);
      if (Date.now() - lastSign > machine.stallMilliseconds) {
        const what = host ? `the agent is not ready: ${message}` : "no agent and no console output";
        const quiet = Math.round(machine.stallMilliseconds / 1000);
        throw new StalledBootError((await failure(machine, `${what} for ${quiet} s`)).message);
      }
      await sleep(500, signal);
    }
  } catch (error) {
    if (error instanceof StalledBootError || !signal.aborted) throw error;
    // Out of time: the console shows how far it came.
    const reason = signal.reason as Error;
    if (reason.name === "DeadlineExceededError") {
      throw await failure(machine, reason.message.replace(`${machine.id}: `, ""));
    }
    throw reason;
  } finally {
    enrollment.close();
  }
}

async function failure(machine: BootingMachine, what: string): Promise<Error> {
  const [console, qemu] = await Promise.all([lastLines(machine.serialLog, errorLines), lastLines(machine.qemuLog, 3)]);
  return new Error(
    `${machine.id}: ${what}\nLast lines of the serial console (${machine.serialLog}):\n${console || "(empty)"}` +
      (qemu ? `\nLast lines of QEMU's log (${machine.qemuLog}):\n${qemu}` : ""),
  );
}

/** Keeps a connection to the enrollment port while a boot is watched. */
class EnrollmentConnection {
  private server: EnrollmentServer | undefined;

  constructor(
    private readonly machine: BootingMachine,
    private readonly onEnrolled: () => void,
  ) {}

  async connect(signal: AbortSignal): Promise<void> {
    if (this.server?.isOpen) return;
    try {
      const socket = await connectUnix(this.machine.enrollmentSocket, 2000, signal);
      this.server = new EnrollmentServer(socket, this.machine.enrollment);
      void this.server.enrolled.then(this.onEnrolled);
    } catch {
      signal.throwIfAborted();
      await delay(200);
    }
  }

  close(): void {
    this.server?.close();
  }
}
