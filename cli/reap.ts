/** The end of ephemeral stacks whose runner has ended, or is done with them. */
import path from "node:path";
import { defaultCacheDirectory, defaultStateDirectory } from "../shared/directories.js";
import { identifyProcess, isAlive } from "../shared/process-identity.js";
import {
  ephemeralBackend,
  ephemeralFolder,
  openEphemeralStack,
  readEphemeralMarker,
  removeEphemeralFolder,
  requirePulumi,
  type EphemeralMarker,
} from "../components/internal/ephemeral.js";
import { withLock } from "../provider/system/lock.js";
import { sleep } from "../shared/sleep.js";
import { clearStaleLocks, readLocks, thisMachine } from "./recovery/stack-lock.js";
import { removeOwnedBy } from "../provider/local/reap.js";

/** A Pulumi whose program has died ends by itself, once the calls in flight are over; after this it is told to. */
const pulumiMilliseconds = 30_000;
const removalMilliseconds = 10 * 60_000;

/**
 * Destroys a stack and removes its folder; nothing happens when there is none any more. Two that reap the same one come one after
 * the other.
 *
 * @throws Error when something of the stack may be left; the folder stays then, for the next attempt.
 */
export async function reapStack(id: string, say: (line: string) => void): Promise<void> {
  await withLock(path.join(path.dirname(ephemeralFolder(id)), ".locks", id), undefined, async () => {
    const marker = readEphemeralMarker(id);
    if (!marker) return;
    requirePulumi();
    await endPulumi(marker);
    const trouble = await destroy(marker).catch((error: Error) => error);
    // What no stack knows, and what could not be destroyed in order.
    const removed = await removeOwnedBy(
      ephemeralBackend(id),
      { stateDirectory: defaultStateDirectory(), cacheDirectory: defaultCacheDirectory() },
      {
        signal: AbortSignal.timeout(removalMilliseconds),
        deadline: Date.now() + removalMilliseconds,
        log: (_severity, message) => say(message),
        status: () => undefined,
        checkpoint: async () => undefined,
      },
    );
    if (removed.length > 0) say(`${id}: removed by ownership marker: ${removed.join(", ")}`);
    if (trouble) {
      // With ours gone, the rest of the stack may go.
      say(`${id}: not destroyed in order: ${trouble.message}`);
      await destroy(marker, { refresh: true });
    }
    removeEphemeralFolder(id);
    say(`${id}: destroyed`);
  });
}

async function destroy(marker: EphemeralMarker, options: { refresh?: boolean } = {}): Promise<void> {
  const stack = await openEphemeralStack(marker);
  await stack.destroy({ color: "never", ...options });
}

/** Waits for a Pulumi that works on the stack, ends it when it takes too long, and clears its lock. */
async function endPulumi({ id, project, stack }: EphemeralMarker): Promise<void> {
  const place = { backend: path.join(ephemeralFolder(id), "backend"), project, stack };
  // Nobody else uses this backend.
  const machine = { ...thisMachine, hostname: undefined };
  for (const { holder } of await readLocks(place, machine)) {
    const identity = holder === undefined ? undefined : await identifyProcess(holder);
    for (const signal of [undefined, "SIGINT", "SIGKILL"] as const) {
      if (identity && signal && (await isAlive(identity))) process.kill(identity.pid, signal);
      const end = Date.now() + pulumiMilliseconds;
      while ((await isAlive(identity)) && Date.now() < end) await sleep(200);
    }
  }
  const messages: string[] = [];
  if (!(await clearStaleLocks(place, machine, (line) => messages.push(line)))) throw new Error(messages.join(". "));
}
