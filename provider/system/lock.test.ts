import { spawn } from "node:child_process";
import { once } from "node:events";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { acquireLock, withLock } from "./lock.js";
import { withFolder } from "./testing.js";

describe("acquireLock", () => {
  it("excludes a second holder until it is released", async () => {
    await withFolder(async (folder) => {
      const path = join(folder, "locks", "a");
      const order: string[] = [];
      await Promise.all(
        ["one", "two", "three"].map((name) =>
          withLock(path, undefined, async () => {
            order.push(`${name} in`);
            await new Promise((resolve) => setTimeout(resolve, 30));
            order.push(`${name} out`);
          }),
        ),
      );
      for (let index = 0; index < order.length; index += 2) {
        expect(order[index]!.replace("in", "out")).toBe(order[index + 1]);
      }
    });
  });

  it("gives up when cancelled", async () => {
    await withFolder(async (folder) => {
      const path = join(folder, "a");
      const release = await acquireLock(path);
      await expect(acquireLock(path, AbortSignal.timeout(200))).rejects.toThrow();
      await release();
      await (
        await acquireLock(path)
      )();
    });
  });

  it("is free again when its holder is killed", async () => {
    await withFolder(async (folder) => {
      const path = join(folder, "a");
      // A process that holds the lock as this module does: through a child that ends with its standard input.
      const program = `const c = require("node:child_process").spawn("flock", ["--exclusive", "--no-fork", process.argv[1], "cat"],
        { detached: true, stdio: ["pipe", "pipe", "ignore"] });
        c.stdin.write("locked\\n"); c.stdout.once("data", () => console.log("locked"));`;
      const holder = spawn(process.execPath, ["-e", program, path], { stdio: ["ignore", "pipe", "inherit"] });
      await once(holder.stdout, "data");
      await expect(acquireLock(path, AbortSignal.timeout(200))).rejects.toThrow();
      holder.kill("SIGKILL");
      await (
        await acquireLock(path, AbortSignal.timeout(5000))
      )();
    });
  });
});
