/** Runs hosts/image/build.sh. */
import { rename } from "node:fs/promises";
import { join } from "node:path";
import { CommandError, run } from "../../system/command.js";

/**
 * Builds an image into `output`, which the caller removes when the build fails. What mkosi has said in it stays all the
 * same, in `<keptAs>.mkosi.log`.
 *
 * @param args the script's, but for `--output`.
 * @param keptAs beginning of the logs' names; the script's own is `<keptAs>.log`.
 * @throws CommandError with the last lines and the files of both logs.
 */
export async function runBuildScript(
  script: string,
  args: string[],
  output: string,
  keptAs: string,
  status: (message: string) => void,
  signal: AbortSignal,
): Promise<void> {
  try {
    await run(script, [...args, "--output", output], {
      logFile: `${keptAs}.log`,
      signal,
      diesWithUs: true,
      onLine: (line) => {
        const step = /^\[ *\d+ s\] (.*)$/.exec(line)?.[1];
        if (step !== undefined) status(step);
      },
    });
  } catch (error) {
    const [log, kept] = [join(output, "build.log"), `${keptAs}.mkosi.log`];
    const isKept = await rename(log, kept).then(
      () => true,
      () => false,
    );
    if (!isKept || !(error instanceof CommandError)) throw error;
    throw new CommandError(error.message.replaceAll(log, kept), error.lastLines);
  }
}
