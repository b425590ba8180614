import { createConnection, createServer, type Server, type Socket } from "node:net";
import { join } from "node:path";
import { expect, it } from "vitest";
import { withFolder } from "../../system/testing.js";
import { releaseClone } from "./template-line.js";

/** A clone that waits at the other end of its port; `answers`: it becomes a host of its own. */
async function released(answers: boolean): Promise<{ seed: Buffer; time: number }> {
  return withFolder(async (folder) => {
    const file = join(folder, "template.sock");
    let server!: Server;
    const heard = new Promise<string>((resolve) => {
      server = createServer((guest: Socket) => {
        // The rest of an older message first, as a resumed guest sends it.
        guest.write('Message":""}\n{"ready":true}\n');
        guest.once("data", (line: Buffer) => {
          resolve(line.toString());
          guest.write(answers ? '\n{"ready":true,"released":true}\n' : '\n{"ready":true}\n');
        });
      });
    });
    await new Promise<void>((resolve) => server.listen(file, resolve));
    const line = createConnection(file);
    try {
      await releaseClone(line, answers ? new AbortController().signal : AbortSignal.timeout(300));
      const { seed, time } = JSON.parse(await heard) as { seed: string; time: string };
      return { seed: Buffer.from(seed, "base64"), time: Date.parse(time) };
    } finally {
      line.destroy();
      server.close();
    }
  });
}

it("gives each clone a seed of its own, of the kernel generator's strength, and the time", async () => {
  const [one, other] = [await released(true), await released(true)];
  expect([one.seed.length, other.seed.length]).toEqual([64, 64]);
  expect(one.seed.equals(other.seed)).toBe(false);
  expect(Math.abs(one.time - Date.now())).toBeLessThan(10_000);
});

it("takes no clone for a host of its own that has not said so", async () => {
  await expect(released(false)).rejects.toThrow(/timeout|abort/i);
});
