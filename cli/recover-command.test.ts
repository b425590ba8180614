import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { hostname, tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { run } from "./commands.js";

let folder: string;
let lock: string;
let state: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), "palisade-recover-"));
  const backend = path.join(folder, "back end/.pulumi");
  const locks = path.join(backend, "locks/organization/shop/dev");
  lock = path.join(locks, "lock.json");
  state = path.join(backend, "stacks/shop/dev.json");
  mkdirSync(locks, { recursive: true });
  mkdirSync(path.dirname(state), { recursive: true });
  mkdirSync(path.join(folder, "project/inner"), { recursive: true });
  writeFileSync(path.join(folder, "project/Pulumi.yaml"), 'name: "shop" # of ours\nruntime: nodejs\n');
  writeFileSync(state, "");
  writeFileSync(`${state}.bak`, '{"version":3}');
  vi.spyOn(process, "cwd").mockReturnValue(path.join(folder, "project/inner"));
  vi.stubEnv("PULUMI_BACKEND_URL", `file://${encodeURI(path.join(folder, "back end"))}`);
});
afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true, force: true });
});

const writeLock = (pid: number) =>
  writeFileSync(lock, JSON.stringify({ pid, username: "shop", hostname: hostname(), timestamp: "now" }));

it("clears a dead process' lock and puts the state of before back", async () => {
  writeLock(2 ** 22 + 1);
  expect(await run(["recover", "--stack", "dev"])).toBe(0);
  expect(() => readFileSync(lock)).toThrow(/ENOENT/);
  expect(readFileSync(state, "utf8")).toBe('{"version":3}');
});

it("touches nothing of another machine's lock, nor the state meanwhile", async () => {
  const foreign = JSON.stringify({ pid: 1, username: "shop", hostname: "another", timestamp: "now" });
  writeFileSync(lock, foreign);
  expect(await run(["recover", "--stack", "dev"])).toBe(1);
  expect([readFileSync(lock, "utf8"), readFileSync(state, "utf8")]).toEqual([foreign, ""]);
});

it.each([
  ["s3://states", /the backend s3:\/\/states is no folder of this machine/],
  ["https://api.example", /no folder of this machine/],
])("refuses the backend %s", async (url, reason) => {
  vi.stubEnv("PULUMI_BACKEND_URL", url);
  await expect(run(["recover"])).rejects.toThrow(reason);
});

it("needs a project", async () => {
  vi.spyOn(process, "cwd").mockReturnValue("/proc");
  await expect(run(["recover"])).rejects.toThrow(/there is no Pulumi\.yaml in \/proc or above/);
});

it("says as JSON what it did", async () => {
  let stdout = "";
  vi.spyOn(process.stdout, "write").mockImplementation((text) => ((stdout += String(text)), true));
  vi.spyOn(process.stderr, "write").mockReturnValue(true);
  writeLock(2 ** 22 + 1);
  expect(await run(["recover", "--stack", "dev", "-o", "json"])).toBe(0);
  const report = JSON.parse(stdout);
  expect(report).toMatchObject({ backend: path.join(folder, "back end"), project: "shop", stack: "dev" });
  expect(report.messages).toEqual([expect.stringContaining("lock"), expect.stringContaining("cut off")]);
});
