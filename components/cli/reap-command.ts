/** `palisade reap`: the end of what tests left behind. */
import { parseArgs } from "node:util";
import { isRunning, listEphemeralMarkers, readEphemeralMarker } from "../internal/ephemeral.js";
import type { Command } from "./commands.js";
import { reapStack } from "./reap.js";

export const reapCommand: Command = {
  usage: "reap [--kept] [--id ID] [--when-runner-ends ID]",
  help: "destroys the ephemeral stacks whose test runner has ended; --kept: also those kept after a failure",
  async run(args) {
    const { values } = parseArgs({
      args,
      options: {
        kept: { type: "boolean", default: false },
        id: { type: "string" },
        "when-runner-ends": { type: "string" },
      },
    });
    const waitsFor = values["when-runner-ends"];
    if (waitsFor !== undefined) {
      await endOfInput();
      if (!readEphemeralMarker(waitsFor) || readEphemeralMarker(waitsFor)?.kept) return 0;
    }
    const named = values.id ?? waitsFor;
    const ids =
      named === undefined
        ? listEphemeralMarkers()
            .filter(({ runner, kept }) => !isRunning(runner) && (values.kept || !kept))
            .map(({ id }) => id)
        : [named];
    let failed = 0;
    for (const id of ids) {
      await reapStack(id, (line) => process.stdout.write(`${line}\n`)).catch((error: Error) => {
        failed++;
        process.stderr.write(`palisade reap: ${id}: ${error.message}\nRun \`palisade reap\` again.\n`);
      });
    }
    return failed === 0 ? 0 : 1;
  },
};

/** Whoever holds the other end of standard input has ended, however it did. */
async function endOfInput(): Promise<void> {
  process.stdin.resume();
  await new Promise<void>((resolve) => {
    for (const event of ["end", "close", "error"]) process.stdin.once(event, () => resolve());
  });
}
