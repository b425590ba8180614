import { existsSync, mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { ephemeralStack } from "./index.js";

let folder: string;
beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), "palisade-ephemeral-"));
  vi.stubEnv("PALISADE_STATE", path.join(folder, "state"));
});
afterEach(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true, force: true });
});

it.each([
  ["an empty PATH", () => ""],
  ["a PATH without it", () => path.join(folder, "nothing")],
  [
    "a file that cannot be executed",
    () => {
      mkdirSync(path.join(folder, "bin"));
      writeFileSync(path.join(folder, "bin/pulumi"), "", { mode: 0o644 });
      return path.join(folder, "bin");
    },
  ],
])("says first that pulumi is missing, and makes nothing: %s", async (_name, make) => {
  vi.stubEnv("PATH", make());
  await expect(ephemeralStack(async () => ({}))).rejects.toThrow(
    /^pulumi is not on PATH, .*install it .*Nothing was made$/,
  );
  expect(existsSync(path.join(folder, "state"))).toBe(false);
  expect(readdirSync(folder).filter((name) => name !== "bin")).toEqual([]);
});
