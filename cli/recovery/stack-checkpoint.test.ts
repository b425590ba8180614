import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, expect, it } from "vitest";
import { repairCheckpoint } from "./stack-checkpoint.js";

let backend: string;
let file: string;
let said: string[];

beforeEach(() => {
  backend = mkdtempSync(path.join(tmpdir(), "palisade-checkpoint-"));
  mkdirSync(path.join(backend, ".pulumi/stacks/p"), { recursive: true });
  file = path.join(backend, ".pulumi/stacks/p/s.json");
  said = [];
});

afterEach(() => rmSync(backend, { recursive: true }));

const repair = () => repairCheckpoint({ backend, project: "p", stack: "s" }, (line) => said.push(line));

it("leaves a whole state and an absent one alone", () => {
  repair();
  expect(existsSync(file)).toBe(false);
  writeFileSync(`${file}.bak`, '{"version":1}');
  repair();
  // A removed stack leaves its last state as a backup; it must not come back.
  expect(existsSync(file)).toBe(false);
  writeFileSync(file, '{"version":2}');
  repair();
  expect(readFileSync(file, "utf8")).toBe('{"version":2}');
  expect(said).toEqual([]);
});

it.each(["", '{"version":3,"checkpo'])("puts the version before back in place of %j", (content) => {
  writeFileSync(file, content);
  writeFileSync(`${file}.bak`, '{"version":2}');
  repair();
  expect(readFileSync(file, "utf8")).toBe('{"version":2}');
  expect(readFileSync(`${file}.broken`, "utf8")).toBe(content);
  expect(said).toHaveLength(1);
});

it("begins anew when there never was a whole one", () => {
  writeFileSync(file, "");
  writeFileSync(`${file}.bak`, "");
  repair();
  expect(existsSync(file)).toBe(false);
  expect(said).toHaveLength(1);
});

it.each(["", '{"user.cache_con'])("removes attributes cut off to %j, and whole ones never", (content) => {
  writeFileSync(file, '{"version":2}');
  writeFileSync(`${file}.attrs`, content);
  writeFileSync(`${file}.bak.attrs`, '{"md5":"AA=="}');
  repair();
  expect(existsSync(`${file}.attrs`)).toBe(false);
  expect(existsSync(`${file}.bak.attrs`)).toBe(true);
  expect(readFileSync(file, "utf8")).toBe('{"version":2}');
  expect(said).toHaveLength(1);
});
