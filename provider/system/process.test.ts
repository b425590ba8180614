import { existsSync } from "node:fs";
import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { identify, processesIn, spawnDetached, terminate } from "./process.js";
import { isAlive } from "../../shared/process-identity.js";
import { withFolder } from "./testing.js";

const sleeper = (folder: string, args = ["60"], file = "sleep") =>
  spawnDetached({ name: "sleeper", file, args, directory: folder, logFile: join(folder, "log") });

describe("processes", () => {
  it("live in a session of their own, without our environment", async () => {
    await withFolder(async (folder) => {
      process.env["PALISADE_TEST_CANARY"] = "canary";
      const identity = await sleeper(folder);
      try {
        expect(await isAlive(identity)).toBe(true);
        const stat = await readFile(`/proc/${identity.pid}/stat`, "utf8");
        expect(Number(stat.split(" ")[5])).toBe(identity.pid);
        expect(await readFile(`/proc/${identity.pid}/environ`, "utf8")).not.toContain("canary");
      } finally {
        delete process.env["PALISADE_TEST_CANARY"];
        await terminate(identity);
      }
      expect(await isAlive(identity)).toBe(false);
    });
  });

  it("make files for their owner only, and this process goes on as before", async () => {
    await withFolder(async (folder) => {
      const before = process.umask();
      const [made, ended] = [join(folder, "made"), join(folder, "ended")];
      const identity = await sleeper(folder, ["-c", `touch ${made}; touch ${ended}; sleep 60`], "bash");
      try {
        await expect.poll(() => existsSync(ended)).toBe(true);
        for (const file of [made, join(folder, "log")]) expect((await stat(file)).mode & 0o777, file).toBe(0o600);
      } finally {
        await terminate(identity);
      }
      expect(process.umask()).toBe(before);
    });
  });

  it("are another's when start time or boot differ, and then left alone", async () => {
    const self = (await identify("self", process.pid))!;
    expect(await isAlive(self)).toBe(true);
    for (const other of [
      { ...self, startTime: "1" },
      { ...self, bootId: "another boot" },
    ]) {
      expect(await isAlive(other)).toBe(false);
      await terminate(other);
    }
  });

  it("that ignore SIGTERM are killed", async () => {
    await withFolder(async (folder) => {
      const identity = await sleeper(folder, ["-c", "trap '' TERM; while :; do sleep 0.1; done"], "bash");
      await new Promise((resolve) => setTimeout(resolve, 200));
      await terminate(identity, 500);
      expect(await isAlive(identity)).toBe(false);
    });
  });

  it("that a killed call started and never wrote down are found by their folder, and ended by the next start", async () => {
    await withFolder(async (folder) => {
      const forgotten = await sleeper(folder);
      expect(await processesIn(folder, "sleeper", "sleep")).toEqual([forgotten]);
      const next = await sleeper(folder);
      expect(await isAlive(forgotten)).toBe(false);
      expect(await isAlive(next)).toBe(true);
      await terminate(next);
    });
  });

  it("cannot be started without the program", async () => {
    await withFolder(async (folder) => {
      await expect(sleeper(folder, [], "no-such-program")).rejects.toThrow(
        /no-such-program cannot be started.*installed/,
      );
    });
  });
});
