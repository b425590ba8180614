import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { spawn } from "node:child_process";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it, vi } from "vitest";
import { readBudgets, reasonToEnd, runLayer, secondsOfTimes } from "./run-layer.mjs";

const budget = { minutes: 1, cpuSeconds: 10, quietMinutes: 1 };

let folder;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), "palisade-layer-test-"));
});
afterEach(() => rmSync(folder, { recursive: true }));

/** Runs a script of bash as a layer; the result, and what was shown. */
async function run(script, options = {}) {
  let shown = "";
  const result = await runLayer({
    command: ["bash", "-c", script],
    budget,
    name: `test-${path.basename(folder)}`,
    write: (text) => (shown += text),
    checkMilliseconds: 50,
    graceMilliseconds: 200,
    ...options,
  });
  return { result, shown };
}

/** Whether a process exists and is not only waiting to be reaped. */
function runs(id) {
  try {
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${id}/status`, "utf8"));
  } catch {
    return false;
  }
}

describe("reasonToEnd", () => {
  const limits = { minutes: 10, quietMinutes: 3 };
  it.each([
    [39, 2.9, undefined],
    [40, 0, "it took four times its budget of 10 minutes"],
    [1, 3, "it made no progress for 3 minutes"],
  ])("after %s minutes, %s of them silent", (elapsedMinutes, silentMinutes, reason) => {
    expect(reasonToEnd(limits, { elapsedMinutes, silentMinutes })).toBe(reason);
  });
});

describe("runLayer", () => {
  it("passes output and exit code on", async () => {
    const { result, shown } = await run("echo one; echo two >&2; exit 3");
    expect(result).toMatchObject({ exitCode: 3 });
    expect(result.ended).toBeUndefined();
    expect(shown.split("\n").sort()).toEqual(["", "one", "two"]);
  });

  it("counts guests that were started again, by the last line of the provider's warning", async () => {
    const { result } = await run(
      "echo '  warning: it hung'; echo '    Starting it again (1 of 2)'; echo 'Booting the template again (2 of 2)'",
    );
    expect(result.guestRestarts).toBe(2);
    expect((await run("echo a machine is started again")).result.guestRestarts).toBeUndefined();
  });

  it("counts the CPU time of its children", async () => {
    const { result } = await run("(i=0; while ((i < 200000)); do i=$((i + 1)); done); true");
    expect(result.cpuSeconds).toBeGreaterThan(0.1);
  });

  it.runIf(process.getuid() === 0)("counts the CPU time of what goes on in a session of its own", async () => {
    const loop = "i=0; while ((i < 200000)); do i=$((i + 1)); done; touch done";
    const { result } = await run(`cd ${folder}; setsid bash -c '${loop}' & while [[ ! -e done ]]; do sleep 0.1; done`);
    expect(result.cpuIsLowerBound).toBeUndefined();
    expect(result.cpuSeconds).toBeGreaterThan(0.1);
  });

  it("ends a layer that makes no progress, with all that it started", async () => {
    const { result, shown } = await run(`sleep 60 & echo $! >${folder}/child; wait`, {
      budget: { ...budget, quietMinutes: 0.05 },
    });
    expect(result.ended).toBe("it made no progress for 0.05 minutes");
    expect(result.exitCode).not.toBe(0);
    expect(shown).toContain("is ended: it made no progress");
    const child = readFileSync(path.join(folder, "child"), "utf8").trim();
    await vi.waitFor(() => expect(runs(child)).toBe(false), 5000);
  });

  it("kills a layer that does not end when it is told to", async () => {
    const { result } = await run("trap '' TERM; while true; do sleep 0.05; done", {
      budget: { ...budget, quietMinutes: 0.05 },
    });
    expect(result).toMatchObject({ exitCode: 137, ended: expect.stringContaining("no progress") });
  });

  it("takes a growing file for progress, and a silent command for one without", async () => {
    const script = `for i in {1..10}; do sleep 0.5; echo >>${folder}/events; done`;
    const limits = { budget: { ...budget, quietMinutes: 0.05 } };
    expect((await run(script, { ...limits, watch: [path.join(folder, "events")] })).result.ended).toBeUndefined();
    // Control: without the file nothing is seen of it.
    expect((await run(script, limits)).result.ended).toBe("it made no progress for 0.05 minutes");
  });

  it("ends a layer that prints for ever at four times its budget", async () => {
    const { result } = await run("while true; do echo; sleep 0.02; done", { budget: { ...budget, minutes: 0.005 } });
    expect(result.ended).toBe("it took four times its budget of 0.005 minutes");
  });

  it("does not wait for what holds its output", async () => {
    const started = Date.now();
    const { result } = await run("setsid sleep 5 & echo out");
    expect(result.exitCode).toBe(0);
    expect(Date.now() - started).toBeLessThan(4000);
  });
});

describe("the command", () => {
  it("records a layer that is broken off with the whole run", async () => {
    const command = ["tools/test/run-layer.mjs", folder, "unit", "--", "bash", "-c", "echo begun; sleep 60"];
    const child = spawn(process.execPath, command, { stdio: ["ignore", "pipe", "inherit"] });
    await new Promise((resolve) => child.stdout.once("data", resolve));
    child.kill("SIGTERM");
    await new Promise((resolve) => child.once("exit", resolve));
    expect(JSON.parse(readFileSync(path.join(folder, "unit.result"), "utf8"))).toMatchObject({
      ended: "the run was ended by SIGTERM",
      exitCode: 143,
    });
  });
});

describe("secondsOfTimes", () => {
  it("adds user and system time of the shell and its children", () => {
    expect(secondsOfTimes("0m0.500s 0m0.250s\n1m2.000s 0m1.250s\n")).toBe(64);
  });
});

describe("test/budgets.json", () => {
  it.each(Object.entries(readBudgets()))(
    "%s has times that make sense",
    (_layer, { minutes, cpuSeconds, quietMinutes }) => {
      expect(minutes).toBeGreaterThan(0);
      // Two cores are the smallest machine.
      expect(cpuSeconds).toBeLessThanOrEqual(minutes * 120);
      expect(quietMinutes).toBeGreaterThan(0);
    },
  );
});
