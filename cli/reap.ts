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
import { createLocalBackends } from "../provider/local/index.js";
import { ownedThings, removeThings } from "../provider/local/reap.js";

/** How long a Pulumi whose program has died may take to end by itself; after this it gets a signal. */
const pulumiMilliseconds = 30_000;

/**
 * Destroys a stack and removes its folder; nothing happens when there is none any more. Two that reap the same one come
 * one after the other.
 *
 * @throws Error when something of the stack may be left; the folder stays then, for the next attempt.
 */
export async function reapStack(id: string, say: (line: string) => void): Promise<void> {
  await withLock(path.join(path.dirname(ephemeralFolder(id)), ".locks", id), undefined, async () => {
    const marker = readEphemeralMarker(id);
    if (!marker) return;
    requirePulumi();
    await endPulumi(marker);
    const problem = await destroy(marker).catch((error: Error) => error);
    // What no stack knows, and what could not be destroyed in order.
    const directories = { stateDirectory: defaultStateDirectory(), cacheDirectory: defaultCacheDirectory() };
    const things = await ownedThings(directories.stateDirectory, { backend: ephemeralBackend(id) });
    await removeThings(things, createLocalBackends(directories), say);
    if (things.length > 0) {
      say(`${id}: removed by ownership marker: ${things.map((thing) => thing.id).join(", ")}`);
    }
    if (problem) {
      // With ours gone, the rest of the stack may go.
      say(`${id}: not destroyed in order: ${problem.message}`);
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
