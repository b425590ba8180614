/** The end of ephemeral stacks whose runner has ended, or is done with them. */
import { readdirSync, readFileSync, rmSync } from "node:fs";
import path from "node:path";
import { setTimeout as delay } from "node:timers/promises";
import * as v from "valibot";
import { decode, object } from "../shared/decode.js";
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

/** Waits for a Pulumi that works on the stack, tells it to end, and clears away the locks of those that are gone. */
async function endPulumi({ id, project, stack }: EphemeralMarker): Promise<void> {
  const folder = path.join(ephemeralFolder(id), "backend/.pulumi/locks/organization", project, stack);
  let names: string[];
  try {
    names = readdirSync(folder);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === "ENOENT") return;
    throw error;
  }
  for (const name of names.filter((entry) => entry.endsWith(".json"))) {
    const file = path.join(folder, name);
    const { pid } = decode(object({ pid: v.number() }), readFileSync(file, "utf8"), file);
    const identity = await identifyProcess(pid);
    if ((await isAlive(identity)) && /pulumi/.test(readFileSync(`/proc/${pid}/comm`, "utf8"))) {
      for (const signal of [undefined, "SIGINT", "SIGKILL"] as const) {
        if (signal && (await isAlive(identity))) process.kill(pid, signal);
        const end = Date.now() + pulumiMilliseconds;
        while ((await isAlive(identity)) && Date.now() < end) await delay(200);
      }
    }
    for (const entry of [file, `${file}.attrs`]) rmSync(entry, { force: true });
  }
}
