// Runs one layer of tests and records how it went in REPORTS/LAYER.result: exit code, seconds, and the CPU seconds of
// everything that it started. A layer is ended when it makes no progress for the minutes that test/budgets.json allows
// (`quietMinutes`), or when it has taken four times its budget; the record then says why.
// Progress is output, or a file named by --watch that grows.
// Usage: run-layer.mjs [--prefix] [--watch FILE] REPORTS LAYER -- COMMAND [ARGUMENT...]
import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, rmdirSync, statSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath, pathToFileURL } from "node:url";
import { parseArgs } from "node:util";

// Older versions of Node.js, which only start the setup, have no import.meta.dirname.
const repository = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
/** How long a layer may take to clean up after the signal to end. */
const graceMilliseconds = 60_000;

/** @typedef {{ minutes: number, cpuSeconds: number, quietMinutes: number }} Budget */

/** @returns {Record<string, Budget>} */
export function readBudgets(file = path.join(repository, "test/budgets.json")) {
  return JSON.parse(readFileSync(file, "utf8")).layers;
}

/** What decides when a layer is ended: why it has to end now, or undefined. */
export function reasonToEnd({ minutes, quietMinutes }, { elapsedMinutes, silentMinutes }) {
  if (elapsedMinutes >= 4 * minutes) return `it took four times its budget of ${minutes} minutes`;
  if (silentMinutes >= quietMinutes) return `it made no progress for ${quietMinutes} minutes`;
  return undefined;
}

/**
 * A control group counts the CPU time of all processes of a layer, also of those that live on in sessions of their own.
 * @returns {{ join: string, cpuSeconds: () => number, remove: () => Promise<void> } | undefined} undefined where this
 * user cannot make one
 */
function createCpuGroup(name) {
  const versions = [
    {
      // Version 1.
      parent: "/sys/fs/cgroup/cpuacct",
      read: (folder) => Number(readFileSync(path.join(folder, "cpuacct.usage"), "utf8")) / 1e9,
    },
    {
      // Version 2.
      parent: "/sys/fs/cgroup",
      read: (folder) =>
        Number(/^usage_usec (\d+)$/m.exec(readFileSync(path.join(folder, "cpu.stat"), "utf8"))[1]) / 1e6,
    },
  ];
  for (const { parent, read } of versions) {
    const folder = path.join(parent, name);
    try {
      mkdirSync(folder);
    } catch {
      continue;
    }
    try {
      read(folder);
    } catch {
      rmdirSync(folder);
      continue;
    }
    return {
      join: path.join(folder, "cgroup.procs"),
      cpuSeconds: () => read(folder),
      async remove() {
        // Processes that the layer left running are moved to the group above.
        for (const id of readFileSync(path.join(folder, "cgroup.procs"), "utf8").split("\n").filter(Boolean)) {
          try {
            writeFileSync(path.join(parent, "cgroup.procs"), id);
          } catch {
            // It has ended meanwhile.
          }
        }
        for (let attempt = 0; attempt < 20; attempt += 1) {
          try {
            return rmdirSync(folder);
          } catch {
            // A killed process is still on its way out; an empty group that stays does no harm.
            await new Promise((resolve) => setTimeout(resolve, 100));
          }
        }
      },
    };
  }
  return undefined;
}

/** Seconds of the two lines that the shell's `times` prints, user and system, the second for its children. */
export function secondsOfTimes(text) {
  const values = [...text.matchAll(/(\d+)m([\d.]+)s/g)].map(
    ([, minutes, seconds]) => Number(minutes) * 60 + Number(seconds),
  );
  return values.reduce((sum, value) => sum + value, 0);
}

/**
 * Counts the guests that did not come up and were started again: the provider warns about each. Pulumi shows the first
 * line of a warning on the resource's row and all of it at the end, so the second line counts once.
 */
function countRestarts() {
  let rest = "";
  let count = 0;
  return {
    read(text) {
      const lines = (rest + text).split("\n");
      rest = lines.pop();
      count += lines.filter((line) => /^\s*(Starting it|Booting the template) again \(\d+ of \d+\)/.test(line)).length;
    },
    count: () => count,
  };
}

/**
 * Passes lines on, each behind the layer's name, so that the lines of layers that run side by side can be
 * distinguished.
 */
function withPrefix(prefix, write) {
  let rest = "";
  return (text) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop();
    for (const line of lines) write(`${prefix}${line}\n`);
  };
}

/**
 * @param {{ command: string[], budget: Budget, name: string, watch?: string[], write?: (text: string) => void,
 * checkMilliseconds?: number, graceMilliseconds?: number }} options
 * @returns {Promise<{ exitCode: number, seconds: number, cpuSeconds: number, cpuIsLowerBound?: true,
 *   guestRestarts?: number, ended?: string }>}
 */
export async function runLayer(options) {
  const { command, budget, name, watch = [], write = (text) => process.stdout.write(text) } = options;
  const started = Date.now();
  let progressed = started;
  let ended;
  const group = createCpuGroup(`palisade-test-${process.pid}-${name}`);
  const temporary = mkdtempSync(path.join(tmpdir(), "palisade-layer-"));
  const times = path.join(temporary, "times");
  // The shell outlives a signal to the group, to record the times of a command that ends in its own way.
  const script =
    'trap : INT TERM HUP; [ -z "$JOIN" ] || echo $$ >"$JOIN"; t=$TIMES; unset JOIN TIMES; "$@"; s=$?; times >"$t"; exit $s';
  const child = spawn("bash", ["-c", script, "bash", ...command], {
    cwd: repository,
    env: { ...process.env, JOIN: group?.join ?? "", TIMES: times },
    stdio: ["ignore", "pipe", "pipe"],
    // A process group of its own, so that all of it can be ended.
    detached: true,
  });
  const restarts = countRestarts();
  const show = (text) => {
    progressed = Date.now();
    restarts.read(text);
    write(text);
  };
  for (const stream of [child.stdout, child.stderr]) stream.setEncoding("utf8").on("data", show);

  const signal = (which) => {
    try {
      process.kill(-child.pid, which);
    } catch {
      // None of its processes runs any more.
    }
  };
  let killTimer;
  const end = (reason) => {
    if (ended !== undefined) return;
    ended = reason;
    write(`palisade: ${name} is ended: ${reason}\n`);
    signal("SIGTERM");
    killTimer = setTimeout(() => signal("SIGKILL"), options.graceMilliseconds ?? graceMilliseconds);
  };
  const onSignal = (which) => end(`the run was ended by ${which}`);
  const signals = ["SIGINT", "SIGTERM", "SIGHUP"];
  for (const which of signals) process.on(which, onSignal);

  const sizes = new Map();
  const timer = setInterval(() => {
    for (const file of watch) {
      const size = statSync(file, { throwIfNoEntry: false })?.size ?? 0;
      if (size !== (sizes.get(file) ?? 0)) progressed = Date.now();
      sizes.set(file, size);
    }
    const now = Date.now();
    const reason = reasonToEnd(budget, {
      elapsedMinutes: (now - started) / 60_000,
      silentMinutes: (now - progressed) / 60_000,
    });
    if (reason !== undefined) end(reason);
  }, options.checkMilliseconds ?? 1000);

  const exitCode = await new Promise((resolve) => {
    child.once("error", () => resolve(127));
    child.once("exit", (code, which) => resolve(code ?? (which === "SIGKILL" ? 137 : 143)));
  });
  clearInterval(timer);
  clearTimeout(killTimer);
  if (ended !== undefined) signal("SIGKILL");
  // Processes that the layer left running may hold the pipes open; their output is not waited for.
  await Promise.race([
    new Promise((resolve) => child.once("close", resolve)),
    new Promise((resolve) => setTimeout(resolve, 500)),
  ]);
  child.stdout.destroy();
  child.stderr.destroy();
  for (const which of signals) process.off(which, onSignal);

  let cpuSeconds = 0;
  try {
    cpuSeconds = group === undefined ? secondsOfTimes(readFileSync(times, "utf8")) : group.cpuSeconds();
  } catch {
    // A killed shell reports no times.
  }
  await group?.remove();
  rmSync(temporary, { recursive: true, force: true });
  return {
    exitCode: ended !== undefined && exitCode === 0 ? 124 : exitCode,
    seconds: Number(((Date.now() - started) / 1000).toFixed(1)),
    cpuSeconds: Number(cpuSeconds.toFixed(1)),
    ...(group === undefined ? { cpuIsLowerBound: true } : {}),
    ...(restarts.count() === 0 ? {} : { guestRestarts: restarts.count() }),
    ...(ended === undefined ? {} : { ended }),
  };
}

async function main() {
  const { values, positionals } = parseArgs({
    options: { prefix: { type: "boolean" }, watch: { type: "string", multiple: true } },
    allowPositionals: true,
    strict: true,
  });
  const [reports, layer, ...command] = positionals;
  const budget = readBudgets()[layer] ?? { minutes: 60, cpuSeconds: Infinity, quietMinutes: 20 };
  const plain = (text) => process.stdout.write(text);
  const write = values.prefix ? withPrefix(`${layer}| `, plain) : plain;
  const result = await runLayer({ command, budget, name: layer, watch: values.watch, write });
  mkdirSync(reports, { recursive: true });
  writeFileSync(path.join(reports, `${layer}.result`), `${JSON.stringify(result)}\n`);
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) await main();
