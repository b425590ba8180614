/** Long-lived processes: started in sessions of their own, identified by more than their pid, ended in order. */
import { spawn } from "node:child_process";
import { open, readFile, readdir, readlink, realpath } from "node:fs/promises";
import { uptime } from "node:os";
import { basename } from "node:path";
import { identifyProcess, isAlive, type ProcessIdentity } from "../../shared/process-identity.js";
import { sleep } from "../../shared/sleep.js";

/** A process with the name that messages and the marker give it. */
export interface NamedProcess extends ProcessIdentity {
  name: string;
}

/** Identity of a process; undefined when it is gone already. */
export async function identify(name: string, pid: number): Promise<NamedProcess | undefined> {
  const identity = await identifyProcess(pid);
  return identity && { name, ...identity };
}

/** Of the times in /proc, by its manual page; on every architecture that we run on. */
const ticksPerSecond = 100;

/** How long a living process has been running. */
export function ageSeconds({ startTime }: ProcessIdentity): number {
  return Math.max(0, uptime() - Number(startTime) / ticksPerSecond);
}

/** Waits until the process is gone; false when `milliseconds` are over before. */
export async function waitForExit(
  identity: ProcessIdentity | undefined,
  milliseconds: number,
  signal?: AbortSignal,
): Promise<boolean> {
  const end = Date.now() + milliseconds;
  while (await isAlive(identity)) {
    if (Date.now() >= end) return false;
    await sleep(100, signal);
  }
  return true;
}

/** Sends a signal to exactly this process; nothing happens when it is gone. */
async function send(identity: NamedProcess, signal: NodeJS.Signals): Promise<void> {
  if (!(await isAlive(identity))) return;
  try {
    process.kill(identity.pid, signal);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "ESRCH") throw error;
  }
}

/** SIGTERM, then SIGKILL after `graceMilliseconds` (default 10 s). Returns when the process is gone. */
export async function terminate(identity: NamedProcess | undefined, graceMilliseconds = 10_000): Promise<void> {
  if (!identity || !(await isAlive(identity))) return;
  await send(identity, "SIGTERM");
  if (await waitForExit(identity, graceMilliseconds)) return;
  await send(identity, "SIGKILL");
  if (!(await waitForExit(identity, 10_000))) {
    throw new Error(`${identity.name}: process ${identity.pid} does not end, not even by SIGKILL; see its state in ps`);
  }
}

/**
 * Processes of a program that run in a folder. A call that is killed between starting a process and recording its
 * identity leaves a process that no marker knows; its folder shows to which thing it belongs.
 */
export async function processesIn(directory: string, name: string, file: string): Promise<NamedProcess[]> {
  const folder = await realpath(directory);
  const found: NamedProcess[] = [];
  for (const entry of await readdir("/proc")) {
    if (!/^\d+$/.test(entry)) continue;
    try {
      if ((await readlink(`/proc/${entry}/cwd`)) !== folder) continue;
      const program = (await readFile(`/proc/${entry}/cmdline`, "utf8")).split("\0")[0] ?? "";
      if (basename(program) !== basename(file)) continue;
    } catch {
      // It has ended meanwhile, or belongs to another user.
      continue;
    }
    const identity = await identify(name, Number(entry));
    if (identity) found.push(identity);
  }
  return found;
}

/** Processes that `start` starts make files without permissions for others. It has to be synchronous. */
function withPrivateFiles<T>(start: () => T): T {
  const before = process.umask(0o077);
  try {
    return start();
  } finally {
    process.umask(before);
  }
}

export interface DetachedOptions {
  /** For messages and the marker. */
  name: string;
  file: string;
  args: string[];
  directory: string;
  /** Gets standard output and error, appended. */
  logFile: string;
}

/**
 * Starts a process that outlives this one: a session of its own, no terminal, no inherited file but its log, and an
 * environment of PATH and locale only, so that it holds no secret. What it makes, sockets and logs among it, is for its
 * owner only. A process that an earlier, killed call started in
 * the same folder and never recorded is ended first.
 *
 * @throws when the program cannot be started.
 */
export async function spawnDetached(options: DetachedOptions): Promise<NamedProcess> {
  for (const forgotten of await processesIn(options.directory, options.name, options.file)) await terminate(forgotten);
  const log = await open(options.logFile, "a", 0o600);
  try {
    const child = withPrivateFiles(() =>
      spawn(options.file, options.args, {
        cwd: options.directory,
        detached: true,
        stdio: ["ignore", log.fd, log.fd],
        env: { PATH: process.env["PATH"] ?? "/usr/sbin:/usr/bin:/sbin:/bin", LANG: "C.UTF-8" },
      }),
    );
    await new Promise<void>((resolve, reject) => {
      child.once("spawn", resolve);
      child.once("error", (error) =>
        reject(new Error(`${options.name}: ${options.file} cannot be started: ${error.message}; is it installed?`)),
      );
    });
    child.unref();
    const identity = child.pid === undefined ? undefined : await identify(options.name, child.pid);
    if (!identity) {
      throw new Error(`${options.name}: ${options.file} ended at once; its log is ${options.logFile}`);
    }
    return identity;
  } finally {
    await log.close();
  }
}
