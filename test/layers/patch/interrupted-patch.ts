/**
 * One patch in a process of its own, killed at the step that the request names: `node interrupted-patch.js REQUEST`,
 * with the request as JSON. Prints the outcome as JSON.
 */
import path from "node:path";
import type { Operation, PatchSpec } from "../../../provider/backends/index.js";
import { testOwner } from "../../../provider/system/testing.js";
import { defaultCacheDirectory } from "../../../shared/directories.js";
import { LocalPatcher } from "../../../provider/local/patching/local-patcher.js";
import { LocalRegistries } from "../../../provider/local/registry/local-registries.js";

export interface Request {
  stateDirectory: string;
  spec: PatchSpec;
  /** Checkpoint or beginning of a status line at which the process is killed. Absent: it comes to its end. */
  stopAt?: string;
}

async function main(): Promise<void> {
  const { stateDirectory, spec, stopAt } = JSON.parse(process.argv[2]!) as Request;
  const killAt = (reached: string) => {
    if (stopAt !== undefined && reached.startsWith(stopAt)) process.kill(process.pid, "SIGKILL");
  };
  const op: Operation = {
    owner: testOwner("interrupted"),
    signal: new AbortController().signal,
    deadline: Date.now() + 10 * 60_000,
    log: () => undefined,
    status: killAt,
    checkpoint: async (name) => killAt(name),
  };
  const patcher = new LocalPatcher(stateDirectory, defaultCacheDirectory(), new LocalRegistries(stateDirectory));
  process.stdout.write(`${JSON.stringify(await patcher.patch(op, spec))}\n`);
}

main().catch((error: Error) => {
  process.stderr.write(`${path.basename(__filename)}: ${error.stack}\n`);
  process.exitCode = 1;
});
