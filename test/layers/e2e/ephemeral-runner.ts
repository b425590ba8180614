/**
 * A test runner that gets no further than its host: `node ephemeral-runner.js <image digest>`. Prints the host as JSON
 * and waits.
 */
import { NestedHost } from "../../../components/index.js";
import { ephemeralStack } from "../../../components/testing/index.js";

void (async () => {
  const { id, outputs } = await ephemeralStack(async () => {
    const host = new NestedHost("host", { image: process.argv[2]!, snapshot: "template", stateDiskGiB: 2 });
    return { hostId: host.hostId, seconds: host.bootSeconds };
  });
  process.stdout.write(`${JSON.stringify({ id, ...outputs })}\n`);
  setInterval(() => undefined, 60_000);
})();
