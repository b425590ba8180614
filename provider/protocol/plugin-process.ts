/** The main function of a plugin's process, which the engine starts. */
import { serve } from "./serve.js";
import type { ProviderOptions } from "./provider.js";

const parentPollMilliseconds = 500;

/**
 * Serves until the engine ends the process, or has ended itself. The engine sends a signal at the end of each run. A
 * killed CLI sends none, so the parent process is watched too.
 *
 * @param options `engineAddress` is taken from the arguments, where the engine puts it last
 */
export async function runPlugin<B>(options: Omit<ProviderOptions<B>, "engineAddress">): Promise<void> {
  const parent = process.ppid;
  const engineAddress = process.argv.slice(2).findLast((argument) => !argument.startsWith("-"));
  const provider = await serve({ ...options, engineAddress });
  let ending = false;
  const end = (): void => {
    if (ending) return;
    ending = true;
    void provider.close().finally(() => process.exit(0));
  };
  process.on("SIGINT", end);
  process.on("SIGTERM", end);
  // After the engine's end the pipes are broken. The process must still end its operations in order.
  process.stdout.on("error", () => undefined);
  process.stderr.on("error", () => undefined);
  setInterval(() => {
    if (process.ppid !== parent) end();
  }, parentPollMilliseconds).unref();
  // The engine expects the port in the first line of the output.
  process.stdout.write(`${provider.port}\n`);
}
