import { spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { hasEnded, identifyProcess, isAlive, readProcessStat } from "./process-identity.js";

const noProcess = 2 ** 22 + 1;

describe("readProcessStat", () => {
  let proc: string;
  beforeEach(() => {
    proc = mkdtempSync(path.join(tmpdir(), "palisade-proc-"));
  });
  afterEach(() => rmSync(proc, { recursive: true }));

  const rest = Array.from({ length: 18 }, (_, index) => index).join(" ");

  it.each(["short", "two words", "pul) umi", "a (b) c", ""])("reads the fields after the name %j", async (name) => {
    mkdirSync(path.join(proc, "7"));
    writeFileSync(path.join(proc, "7/stat"), `7 (${name}) S ${rest} 4711 12345\n`);
    expect(await readProcessStat(7, proc)).toEqual({ name, state: "S", startTime: "4711" });
  });

  it("returns nothing for a process that does not exist", async () => {
    expect(await readProcessStat(7, proc)).toBeUndefined();
    expect(await readProcessStat(noProcess)).toBeUndefined();
  });
});

it.each([
  ["R", false],
  ["S", false],
  ["D", false],
  ["T", false],
  ["Z", true],
  ["X", true],
])("a process in the state %s has ended: %s", (state, expected) =>
  expect(hasEnded({ name: "sleep", state, startTime: "1" })).toBe(expected),
);

describe("isAlive", () => {
  it("is true for the process itself, and false where start time or boot differ", async () => {
    const self = (await identifyProcess(process.pid))!;
    expect(self.pid).toBe(process.pid);
    expect(await isAlive(self)).toBe(true);
    expect(await isAlive({ ...self, startTime: "1" })).toBe(false);
    expect(await isAlive({ ...self, bootId: "another boot" })).toBe(false);
    expect(await isAlive(undefined)).toBe(false);
  });

  it("is false once the process has ended", async () => {
    const child = spawn("sleep", ["60"]);
    const identity = (await identifyProcess(child.pid!))!;
    expect(await isAlive(identity)).toBe(true);
    const closed = new Promise((resolve) => child.once("close", resolve));
    child.kill("SIGKILL");
    await closed;
    expect(await isAlive(identity)).toBe(false);
    expect(await identifyProcess(noProcess)).toBeUndefined();
  });
});
