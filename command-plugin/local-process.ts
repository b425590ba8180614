/** Runs a command on this machine, for `local.Command` and `local.run`. */
import { spawn, type ChildProcessWithoutNullStreams } from "node:child_process";
import type { Operation } from "../provider/backends/index.js";
import type { Properties } from "../provider/protocol/resource.js";
import { archiveOf, assetsOf } from "./assets.js";
import { requireAcceptable, type Commands, type Variables } from "./environment.js";
import { findFiles } from "./globs.js";
import type { LocalRunInputs } from "./inputs.js";
import { CommandOutput } from "./output.js";

const killMilliseconds = 3_000;

/** How a command runs on this machine, for a resource and for the function. */
type LocalProcess = Omit<LocalRunInputs, "command" | "addPreviousOutputInEnv"> & Commands;

/**
 * Runs a command and returns the outputs.
 * @param environment the last run's output, in addition to the variables of this process and `inputs.environment`
 * @throws Error with the exit code and the last lines of a command that failed
 */
export async function runLocally(
  op: Operation,
  command: string,
  inputs: LocalProcess,
  environment: Variables = {},
): Promise<Properties> {
  op.signal.throwIfAborted();
  const { interpreter, dir, environment: given, assetPaths, archivePaths } = inputs;
  const [program = "", ...leading] = interpreter ?? ["/bin/sh", "-c"];
  const folder = dir ?? process.cwd();
  const { create, update, delete: atDelete } = inputs;
  requireAcceptable({ command, create, update, delete: atDelete, interpreter, dir, environment: given });
  const start = (previous: Variables) =>
    spawn(program, [...leading, command], {
      cwd: folder,
      env: { ...process.env, ...given, ...previous },
      // A process group of its own, so that everything that the command started ends with it when the run is cancelled.
      detached: true,
      stdio: "pipe",
    });
  const child = started(op, start, environment);
  const signalGroup = (signal: NodeJS.Signals) => {
    try {
      process.kill(-child.pid!, signal);
    } catch {
      // It has ended already.
    }
  };
  let killing: NodeJS.Timeout | undefined;
  const cancel = () => {
    signalGroup("SIGTERM");
    killing = setTimeout(() => signalGroup("SIGKILL"), killMilliseconds);
  };
  op.signal.addEventListener("abort", cancel, { once: true });
  const output = new CommandOutput(op, inputs.logging);
  child.stdout.on("data", (chunk: Buffer) => output.stdout.add(chunk));
  child.stderr.on("data", (chunk: Buffer) => output.stderr.add(chunk));
  // A command need not read its input.
  child.stdin.on("error", () => undefined);
  child.stdin.end(inputs.stdin ?? "");
  try {
    const closed = new Promise((resolve) => child.once("close", resolve));
    const ended = await new Promise<{ code: number | null; signal: string | null }>((resolve, reject) => {
      child.once("error", (error) =>
        reject(new Error(`${program} cannot be run in ${folder}: ${error.message}; look at interpreter and dir`)),
      );
      child.once("exit", (code, signal) => resolve({ code, signal }));
    });
    if (await output.drained(closed)) detach(child);
    op.signal.throwIfAborted();
    output.finish(command, ended, "");
  } finally {
    clearTimeout(killing);
    op.signal.removeEventListener("abort", cancel);
  }
  const outputs: Properties = output.properties();
  if (assetPaths) outputs["assets"] = await assetsOf(folder, await findFiles(folder, assetPaths));
  if (archivePaths) outputs["archive"] = await archiveOf(folder, await findFiles(folder, archivePaths));
  return outputs;
}

/** Starts a program. When arguments and variables are too large for the system, the last run's output is left out. */
function started(
  op: Operation,
  start: (previous: Variables) => ChildProcessWithoutNullStreams,
  previous: Variables,
): ChildProcessWithoutNullStreams {
  try {
    return start(previous);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "E2BIG") throw error;
    const names = Object.keys(previous);
    if (names.length === 0) {
      throw new Error(
        "environment: together with the command and with what Pulumi itself was started with, it is larger than the system takes (E2BIG); " +
          "hand large values over by stdin or by files",
        { cause: error },
      );
    }
    op.log("info", `${names.join(" and ")} are not set: with them the environment is larger than the system takes`);
    return started(op, start, {});
  }
}

/**
 * Keeps reading for background processes of the command: without a reader of its pipe, a process that writes would be
 * ended.
 */
function detach(child: ChildProcessWithoutNullStreams): void {
  for (const stream of [child.stdout, child.stderr]) {
    stream.removeAllListeners("data").resume();
    (stream as unknown as { unref?(): void }).unref?.();
  }
  child.stdin.destroy();
  child.unref();
}
