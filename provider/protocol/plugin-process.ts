/** The provider as a process of its own, which the engine has started. */
import { serve } from "./serve.js";
import type { ProviderOptions } from "./provider.js";

const parentPollMilliseconds = 500;

/**
 * Serves until the engine ends the process, or is gone itself. The engine signals at the end of each run; when the CLI was killed
 * nobody signals, so the parent's disappearance is watched too.
 * @param options - `engineAddress` is taken from the arguments, where the engine puts it last
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
  // A dead engine leaves broken pipes; that is no reason to die before operations have been ended in order.
  process.stdout.on("error", () => undefined);
  process.stderr.on("error", () => undefined);
  setInterval(() => {
    if (process.ppid !== parent) end();
  }, parentPollMilliseconds).unref();
  // The first line of the output is the port: the engine's protocol.
  process.stdout.write(`${provider.port}\n`);
}
