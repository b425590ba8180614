/** Identity of processes on this machine. A pid alone is none, because the kernel gives it to other processes later. */
import { readFile } from "node:fs/promises";
import path from "node:path";

/** Distinguishes a process from all others that ever had its pid. */
export interface ProcessIdentity {
  pid: number;
  /** Clock ticks after boot, field 22 of /proc/<pid>/stat. */
  startTime: string;
  bootId: string;
}

/** What /proc/<pid>/stat says about a process: https://man7.org/linux/man-pages/man5/proc_pid_stat.5.html */
export interface ProcessStat {
  /** The short name, at most 15 bytes of it. */
  name: string;
  /** One letter; `Z` and `X` are processes that have ended. */
  state: string;
  /** Clock ticks after boot. */
  startTime: string;
}

/** Undefined when there is no such process. */
export async function readProcessStat(pid: number, proc = "/proc"): Promise<ProcessStat | undefined> {
  let stat: string;
  try {
    stat = await readFile(path.join(proc, String(pid), "stat"), "utf8");
  } catch (error) {
    if (["ENOENT", "ENOTDIR", "ESRCH"].includes((error as NodeJS.ErrnoException).code ?? "")) return undefined;
    throw error;
  }
  // "pid (name) state ...": the name may hold spaces and parentheses, so the rest begins after the last one.
  const end = stat.lastIndexOf(")");
  const fields = stat.slice(end + 2).split(" ");
  return { name: stat.slice(stat.indexOf("(") + 1, end), state: fields[0] ?? "", startTime: fields[19] ?? "" };
}

/** Whether the process has ended and only waits to be collected by its parent. */
export function hasEnded({ state }: ProcessStat): boolean {
  return state === "Z" || state === "X";
}

let knownBootId: string | undefined;

/**
 * Changes with every boot of the machine: a process of another boot id cannot be alive. It is read once, because it
 * cannot change while this process runs.
 */
export async function bootId(): Promise<string> {
  knownBootId ??= (await readFile("/proc/sys/kernel/random/boot_id", "utf8")).trim();
  return knownBootId;
}

/** Undefined when there is no such process. */
export async function identifyProcess(pid: number): Promise<ProcessIdentity | undefined> {
  const stat = await readProcessStat(pid);
  return stat && { pid, startTime: stat.startTime, bootId: await bootId() };
}

/** Whether exactly this process still runs. A zombie does not. */
export async function isAlive(identity: ProcessIdentity | undefined): Promise<boolean> {
  if (!identity || identity.bootId !== (await bootId())) return false;
  const stat = await readProcessStat(identity.pid);
  return stat !== undefined && stat.startTime === identity.startTime && !hasEnded(stat);
}
