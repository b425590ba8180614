/** Runs command lines of `palisade`. */
import { CommanderError } from "commander";
import { createProgram, exitCodes } from "./program.js";

/**
 * Runs `palisade ARGS`. A command line that cannot be understood is reported on standard error.
 *
 * @returns the exit code: 0 done, 1 failed, 2 the command line is not understood.
 * @throws Error when the command failed; {@link runToEnd} says why.
 */
export async function run(args: string[]): Promise<number> {
  let exitCode: number = exitCodes.done;
  try {
    await createProgram((code) => (exitCode = code)).parseAsync(args, { from: "user" });
    return exitCode;
  } catch (error) {
    if (!(error instanceof CommanderError)) throw error;
    // Help and version that were asked for end with 0. Help that is shown because no command was given does not.
    return error.exitCode === 0 ? exitCodes.done : exitCodes.notUnderstood;
  }
}

/** Like {@link run}, but reports a failure on standard error and never throws. */
export async function runToEnd(args: string[]): Promise<number> {
  try {
    return await run(args);
  } catch (error) {
    process.stderr.write(`palisade: ${error instanceof Error ? error.message : String(error)}\n`);
    return 1;
  }
}
