import { join } from "node:path";
import { readFile } from "node:fs/promises";
import { describe, expect, it } from "vitest";
import { run } from "./command.js";
import { withFolder } from "./testing.js";

describe("run", () => {
  it("returns standard output and hands on every line", async () => {
    const lines: string[] = [];
    const output = await run("bash", ["-c", "echo out; echo err >&2"], { onLine: (line) => lines.push(line) });
    expect(output).toBe("out\n");
    expect(lines.sort()).toEqual(["err", "out"]);
  });

  it("fails with the last lines and where the rest is", async () => {
    await withFolder(async (folder) => {
      const logFile = join(folder, "log");
      const failing = run("bash", ["-c", "seq 100; exit 3"], { logFile });
      await expect(failing).rejects.toThrow(/exit code 3[^]*\n99\n100\nThe whole log: .*log$/);
      expect((await readFile(logFile, "utf8")).split("\n")).toHaveLength(101);
    });
  });

  it("ends the whole group when cancelled", async () => {
    const begin = Date.now();
    await expect(run("bash", ["-c", "sleep 60 & sleep 60"], { signal: AbortSignal.timeout(200) })).rejects.toThrow(
      /timeout/i,
    );
    expect(Date.now() - begin).toBeLessThan(4000);
  });
});
