import { join } from "node:path";
import { readFile } from "node:fs/promises";
import { describe, expect, it } from "vitest";
import { run } from "./command.js";
import { identify } from "./process.js";
import { isAlive } from "../../shared/process-identity.js";
import { withFolder } from "./testing.js";
import { within } from "./time.js";

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

  it("hands on what it is given, and reads it to its end when the program does not", async () => {
    let given = 0;
    async function* pieces() {
      for (let piece = 0; piece < 50; piece++, given++) yield Buffer.alloc(65536, "x");
    }
    expect((await run("wc", ["-c"], { input: pieces() })).trim()).toBe(String(50 * 65536));
    given = 0;
    expect(await run("head", ["-c", "1"], { input: pieces() })).toBe("x");
    expect(given).toBe(50);
  });

  it("fails with the error of what it is given, and ends the program", async () => {
    async function* broken() {
      yield Buffer.from("x");
      throw new Error("the source broke");
    }
    const begin = Date.now();
    await expect(run("bash", ["-c", "cat; sleep 60"], { input: broken() })).rejects.toThrow("the source broke");
    expect(Date.now() - begin).toBeLessThan(4000);
  });

  it("fails with the program's own words when it fails before it has read all", async () => {
    async function* endless() {
      for (;;) {
        yield Buffer.alloc(65536);
        await new Promise((resolve) => setImmediate(resolve));
      }
    }
    const failing = run("bash", ["-c", "echo no space left; exit 1"], { input: endless() });
    await expect(failing).rejects.toThrow(/exit code 1[^]*no space left/);
  });

  it("ends the whole group when cancelled", async () => {
    const begin = Date.now();
    await expect(run("bash", ["-c", "sleep 60 & sleep 60"], { signal: AbortSignal.timeout(200) })).rejects.toThrow(
      /timeout/i,
    );
    expect(Date.now() - begin).toBeLessThan(4000);
  });

  it("tells at the end of its time what was being done", async () => {
    await withFolder(async (folder) => {
      const logFile = join(folder, "log");
      const work = (milliseconds: number, script: string) =>
        within({ signal: new AbortController().signal, deadline: Date.now() + milliseconds }, "image", (signal) =>
          run("bash", ["-c", script], { signal, logFile }),
        );
      const late = await work(500, "echo fetching packages; sleep 60").catch((error: Error) => error);
      expect(late).toMatchObject({ name: "DeadlineExceededError" });
      expect((late as Error).message).toMatch(
        /^image: not done in time;.*\nbash was at work; its last lines:\nfetching packages\n/,
      );
      expect((late as Error).message).toContain(`The whole log: ${logFile}`);
      expect(((await work(200, "sleep 60").catch((error: Error) => error)) as Error).message).not.toContain("lines");
    });
  });

  it("ends the program when this process is killed", async () => {
    await withFolder(async (folder) => {
      const identityFile = join(folder, "pid");
      // A process that starts a program as `run` does, and is killed as soon as the program runs.
      const program = `require("node:child_process").spawn("setpriv",
        ["--pdeathsig", "TERM", "--", "bash", "-c", "echo $$ > $0; exec sleep 60", process.argv[1]], { detached: true });
        setInterval(() => require("node:fs").existsSync(process.argv[1]) && process.kill(process.pid, "SIGKILL"), 50);`;
      await expect(run(process.execPath, ["-e", program, identityFile])).rejects.toThrow(/SIGKILL/);
      const pid = Number(await readFile(identityFile, "utf8"));
      for (let attempt = 0; attempt < 20 && (await isAlive(await identify("sleep", pid))); attempt++) {
        await new Promise((resolve) => setTimeout(resolve, 100));
      }
      expect(await isAlive(await identify("sleep", pid))).toBe(false);
    });
  });
});
