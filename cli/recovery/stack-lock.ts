/**
 * Locks of Pulumi's file backend. A killed Pulumi leaves its lock behind, and every later run is refused. A lock is
 * cleared only when it is of this machine and its process is gone or is another program by now; never when it is of
 * another machine, of a living Pulumi, or cannot be read.
 */
import { readlink, rm } from "node:fs/promises";
import { hostname } from "node:os";
import path from "node:path";
import { readDirectoryIfPresent, readFileIfPresent } from "../../provider/system/atomic-file.js";
import { hasEnded, readProcessStat } from "../../shared/process-identity.js";

/** A stack of a file backend. */
export interface FileBackendStack {
  /** Folder of the backend. */
  backend: string;
  project: string;
  stack: string;
}

/** The machine on which the processes of the locks are looked up. */
export interface Machine {
  /** Undefined: only this machine uses the backend, so every lock is its own, even under an earlier host name. */
  hostname: string | undefined;
  /** Program of a process; undefined when there is no such process, "" when that is not readable. */
  programOf(pid: number): Promise<string | undefined>;
}

/** Whether a lock may be cleared, and why. */
export interface LockAssessment {
  stale: boolean;
  reason: string;
  /** The Pulumi that holds the lock; only when it still runs. */
  holder?: number;
}

/** A lock of a stack. */
export interface StackLock extends LockAssessment {
  file: string;
}

/**
 * Program of a process of this machine; undefined when there is no such process, "" when that is not readable.
 *
 * @param proc the proc file system
 */
export async function programOf(pid: number, proc = "/proc"): Promise<string | undefined> {
  const stat = await readProcessStat(pid, proc).catch(() => "unreadable" as const);
  if (stat === "unreadable") return "";
  if (stat === undefined || hasEnded(stat)) return undefined;
  try {
    const executable = await readlink(path.join(proc, String(pid), "exe"));
    return path.basename(executable.replace(/ \(deleted\)$/, ""));
  } catch {
    // Another user's process hides its executable.
    return stat.name;
  }
}

/** The machine that this runs on. */
export const thisMachine: Machine = { hostname: hostname(), programOf: (pid) => programOf(pid) };

/** @param text content of the lock file */
export async function assessLock(text: string, machine: Machine): Promise<LockAssessment> {
  let lock: unknown;
  try {
    lock = JSON.parse(text);
  } catch {
    return { stale: false, reason: "its file cannot be read as JSON" };
  }
  const { pid, hostname: owner, username, timestamp } = (lock ?? {}) as Record<string, unknown>;
  if (typeof pid !== "number" || !Number.isInteger(pid) || pid <= 0 || typeof owner !== "string" || owner === "") {
    return { stale: false, reason: "its file names no process and machine" };
  }
  const who = `process ${pid} of ${String(username || "?")} on ${owner}, since ${String(timestamp || "?")}`;
  if (machine.hostname !== undefined && owner !== machine.hostname) {
    return { stale: false, reason: `${who}: another machine, whose processes are not seen from here` };
  }
  const program = await machine.programOf(pid);
  if (program === undefined) return { stale: true, reason: `${who}: that process is gone` };
  if (program === "") return { stale: false, reason: `${who}: that process runs and cannot be looked at` };
  if (program !== "pulumi") return { stale: true, reason: `${who}: process ${pid} is ${program} now` };
  return { stale: false, reason: `${who}: it is still running`, holder: pid };
}

/** The locks of a stack. */
export async function readLocks({ backend, project, stack }: FileBackendStack, machine: Machine): Promise<StackLock[]> {
  const folder = path.join(backend, ".pulumi", "locks", "organization", project, stack);
  const locks: StackLock[] = [];
  for (const name of await readDirectoryIfPresent(folder)) {
    if (!name.endsWith(".json")) continue;
    const file = path.join(folder, name);
    const text = await readFileIfPresent(file);
    // A lock without a file has been released just now.
    if (text !== undefined) locks.push({ file, ...(await assessLock(text, machine)) });
  }
  return locks;
}

/**
 * Clears the stale locks of a stack.
 *
 * @param say gets what was done, and why a lock stays
 * @returns false when a lock stays.
 */
export async function clearStaleLocks(
  place: FileBackendStack,
  machine: Machine,
  say: (line: string) => void,
): Promise<boolean> {
  let isFree = true;
  for (const { file, stale, reason } of await readLocks(place, machine)) {
    if (stale) {
      for (const entry of [file, `${file}.attrs`]) await rm(entry, { force: true });
      say(`cleared a stale lock of the stack ${place.stack} (${reason})`);
    } else {
      isFree = false;
      say(`the stack ${place.stack} is locked by ${reason}`);
      say(`Wait for it to end; if you are sure that nothing works on the stack, remove ${file}`);
    }
  }
  return isFree;
}
