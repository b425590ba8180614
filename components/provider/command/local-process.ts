/** A command of this machine, as `local.Command` and `local.run` have it. */
import { spawn } from "node:child_process";
import type { Operation } from "../backends.js";
import type { Properties } from "../resource.js";
import { archiveOf, assetsOf } from "./assets.js";
import { findFiles } from "./globs.js";
import { CommandOutput } from "./output.js";

const killMilliseconds = 3_000;

/**
 * Runs a command and returns the outputs.
 * @param environment beside what this process has and `inputs.environment`
 * @throws Error with the exit code and the last lines of a command that failed
 */
export async function runLocally(
  op: Operation,
  command: string,
  inputs: Properties,
  environment: Record<string, string> = {},
): Promise<Properties> {
  op.signal.throwIfAborted();
  const [program, ...leading] = (inputs["interpreter"] as string[] | undefined) ?? ["/bin/sh", "-c"];
  if (program === undefined) throw new Error("interpreter: is empty; its first item is the program, e.g. /bin/sh");
  const folder = (inputs["dir"] as string | undefined) ?? process.cwd();
  const child = spawn(program, [...leading, command], {
    cwd: folder,
    env: { ...process.env, ...(inputs["environment"] as Record<string, string> | undefined), ...environment },
    // A group of its own: what the command started ends with it when the run is cancelled.
    detached: true,
    stdio: "pipe",
  });
  const signalGroup = (signal: NodeJS.Signals) => {
    try {
      process.kill(-child.pid!, signal);
    } catch {
      // It is gone.
    }
  };
  let killing: NodeJS.Timeout | undefined;
  const cancel = () => {
    signalGroup("SIGTERM");
    killing = setTimeout(() => signalGroup("SIGKILL"), killMilliseconds);
  };
  op.signal.addEventListener("abort", cancel, { once: true });
  const output = new CommandOutput(inputs, op);
  child.stdout.on("data", (chunk: Buffer) => output.stdout.add(chunk));
  child.stderr.on("data", (chunk: Buffer) => output.stderr.add(chunk));
  // A command need not read its input.
  child.stdin.on("error", () => undefined);
  child.stdin.end((inputs["stdin"] as string | undefined) ?? "");
  try {
    const ended = await new Promise<{ code: number | null; signal: string | null }>((resolve, reject) => {
      child.once("error", (error) =>
        reject(new Error(`${program} cannot be run in ${folder}: ${error.message}; look at interpreter and dir`)),
      );
      child.once("close", (code, signal) => resolve({ code, signal }));
    });
    op.signal.throwIfAborted();
    output.finish(command, ended, "");
  } finally {
    clearTimeout(killing);
    op.signal.removeEventListener("abort", cancel);
  }
  const outputs: Properties = output.properties();
  const assetPaths = inputs["assetPaths"] as string[] | undefined;
  const archivePaths = inputs["archivePaths"] as string[] | undefined;
  if (assetPaths) outputs["assets"] = await assetsOf(folder, await findFiles(folder, assetPaths));
  if (archivePaths) outputs["archive"] = await archiveOf(folder, await findFiles(folder, archivePaths));
  return outputs;
}
