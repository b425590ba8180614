/** `palisade reap`: removes what tests left behind. */
import { isAlive } from "../shared/process-identity.js";
import { listEphemeralMarkers, readEphemeralMarker } from "../components/internal/ephemeral.js";
import { type OutputOptions, writeDocument } from "./output.js";
import { reapStack } from "./reap.js";

/** Options of `palisade reap`. */
export interface ReapOptions extends OutputOptions {
  kept?: boolean;
  id?: string;
  whenRunnerEnds?: string;
}

/** JSON: the ids of the stacks that were removed, and those that were not, with the reason. */
export async function reap({
  kept = false,
  id: named,
  whenRunnerEnds: waitsFor,
  output,
}: ReapOptions): Promise<number> {
  if (waitsFor !== undefined) {
    await endOfInput();
    if (!readEphemeralMarker(waitsFor) || readEphemeralMarker(waitsFor)?.kept) return 0;
  }
  const one = named ?? waitsFor;
  const ids = one === undefined ? await abandonedStacks(kept) : [one];
  const destroyed: string[] = [];
  const failed: { id: string; error: string }[] = [];
  const say = (line: string) => void (output === "json" ? process.stderr : process.stdout).write(`${line}\n`);
  for (const id of ids) {
    try {
      await reapStack(id, say);
      destroyed.push(id);
    } catch (error) {
      failed.push({ id, error: (error as Error).message });
      process.stderr.write(`palisade reap: ${id}: ${(error as Error).message}\nRun \`palisade reap\` again.\n`);
    }
  }
  if (output === "json") writeDocument({ destroyed, failed });
  return failed.length === 0 ? 0 : 1;
}

/** Ids of the stacks whose test runner has ended; those that were kept for a look only when `kept`. */
async function abandonedStacks(kept: boolean): Promise<string[]> {
  const ids: string[] = [];
  for (const marker of listEphemeralMarkers()) {
    if ((kept || !marker.kept) && !(await isAlive(marker.runner))) ids.push(marker.id);
  }
  return ids;
}

/** Returns when the process at the other end of standard input has ended in any way. */
async function endOfInput(): Promise<void> {
  process.stdin.resume();
  await new Promise<void>((resolve) => {
    for (const event of ["end", "close", "error"]) process.stdin.once(event, () => resolve());
  });
}
