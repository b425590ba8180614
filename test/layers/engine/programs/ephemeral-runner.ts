/**
 * A test runner that gets no further than its stack: `node ephemeral-runner.js`. Prints the stack as JSON and waits.
 */
import { StateDisk } from "../../../../components/index.js";
import { ephemeralStack } from "../../../../components/testing/index.js";

void (async () => {
  const { id, outputs } = await ephemeralStack(async () => {
    const disk = new StateDisk("disk", { sizeGiB: 1 });
    return { disk: disk.id };
  });
  process.stdout.write(`${JSON.stringify({ id, ...outputs })}\n`);
  setInterval(() => undefined, 60_000);
})();
