// Locks of Pulumi's file backend. A killed Pulumi leaves its lock behind, and every later run is refused. A lock is
// cleared here only when it is of this machine and its process is gone or is another program by now; one of another
// machine, of a living Pulumi, or one that cannot be read, never.
import { readdirSync, readFileSync, readlinkSync, rmSync } from "node:fs";
import { hostname } from "node:os";
import path from "node:path";
import { pathToFileURL } from "node:url";

/**
 * What is known about a process: undefined when there is none, otherwise its program's name, or "" when it cannot be
 * told.
 * @param {number} pid
 * @param {string} proc the proc file system
 * @returns {string | undefined}
 */
export function programOf(pid, proc = "/proc") {
  let status;
  try {
    status = readFileSync(path.join(proc, String(pid), "stat"), "utf8");
  } catch (error) {
    return error.code === "ENOENT" || error.code === "ESRCH" ? undefined : "";
  }
  // "pid (name) state ...": the name may hold spaces and brackets.
  const state = status.slice(status.lastIndexOf(")") + 2, status.lastIndexOf(")") + 3);
  if (state === "Z" || state === "X") return undefined;
  try {
    return path.basename(readlinkSync(path.join(proc, String(pid), "exe")).replace(/ \(deleted\)$/, ""));
  } catch {
    return status.slice(status.indexOf("(") + 1, status.lastIndexOf(")"));
  }
}

/**
 * Whether a lock may be cleared, and why.
 * @param {string} text content of the lock file
 * @param {{ hostname: string, programOf: (pid: number) => string | undefined }} machine
 * @returns {{ stale: boolean, reason: string }}
 */
export function judge(text, machine) {
  let lock;
  try {
    lock = JSON.parse(text);
  } catch {
    return { stale: false, reason: "its file cannot be read as JSON" };
  }
  const { pid, hostname: owner, username, timestamp } = lock ?? {};
  if (!Number.isInteger(pid) || pid <= 0 || typeof owner !== "string" || owner === "") {
    return { stale: false, reason: "its file names no process and machine" };
  }
  const who = `process ${pid} of ${username || "?"} on ${owner}, since ${timestamp || "?"}`;
  if (owner !== machine.hostname) {
    return { stale: false, reason: `${who}: another machine, whose processes are not seen from here` };
  }
  const program = machine.programOf(pid);
  if (program === undefined) return { stale: true, reason: `${who}: that process is gone` };
  if (program === "") return { stale: false, reason: `${who}: that process runs and cannot be looked at` };
  if (program !== "pulumi") return { stale: true, reason: `${who}: process ${pid} is ${program} now` };
  return { stale: false, reason: `${who}: it is still running` };
}

/** Clears what is stale, says what it did; false when a lock stays. */
export function clearStaleLocks(backend, project, stack, machine, say) {
  const folder = path.join(backend, ".pulumi", "locks", "organization", project, stack);
  let names;
  try {
    names = readdirSync(folder);
  } catch (error) {
    if (error.code === "ENOENT") return true;
    throw error;
  }
  let free = true;
  for (const name of names.filter((entry) => entry.endsWith(".json"))) {
    const file = path.join(folder, name);
    let text;
    try {
      text = readFileSync(file, "utf8");
    } catch (error) {
      // Its owner has ended in this moment.
      if (error.code === "ENOENT") continue;
      throw error;
    }
    const { stale, reason } = judge(text, machine);
    if (stale) {
      rmSync(file, { force: true });
      rmSync(`${file}.attrs`, { force: true });
      say(`cleared a stale lock of the stack ${stack} (${reason})`);
    } else {
      free = false;
      say(`the stack ${stack} is locked by ${reason}`);
      say(`Wait for it to end; if you are sure that nothing works on the stack, remove ${file}`);
    }
  }
  return free;
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [backend, project, stack] = process.argv.slice(2);
  if (!backend || !project || !stack) {
    console.error("usage: stack-lock.mjs BACKEND-FOLDER PROJECT STACK");
    process.exit(2);
  }
  const free = clearStaleLocks(backend, project, stack, { hostname: hostname(), programOf }, (line) =>
    console.error(`palisade: ${line}`),
  );
  process.exit(free ? 0 : 1);
}
