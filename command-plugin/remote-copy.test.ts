/** What is copied, with a server in memory; on OpenSSH's own server: remote.test.ts. */
import { execFileSync } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import type { SFTPWrapper } from "ssh2";
import { afterEach, beforeEach, expect, it } from "vitest";
import type { Operation } from "../provider/backends/index.js";
import { Copier } from "./remote-copy.js";

let folder: string;
let there: Map<string, string | undefined>;
const at = (...parts: string[]) => path.join(folder, ...parts);

beforeEach(() => {
  folder = mkdtempSync(path.join(tmpdir(), "palisade-copy-"));
  there = new Map([["/to", undefined]]);
  mkdirSync(at("real/sub"), { recursive: true });
  writeFileSync(at("real/sub/file"), "x");
  writeFileSync(at("real/top"), "y");
});
afterEach(() => rmSync(folder, { recursive: true }));

const sftp = {
  stat: (target: string, done: (error: object | undefined, stats?: object) => void) =>
    there.has(target) ? done(undefined, { isDirectory: () => there.get(target) === undefined }) : done({ code: 2 }),
  mkdir: (target: string, done: () => void) => {
    there.set(target, undefined);
    done();
  },
  fastPut: (source: string, target: string, _options: object, done: () => void) => {
    there.set(target, readFileSync(source, "utf8"));
    done();
  },
} as unknown as SFTPWrapper;

const copied = async (source: string): Promise<Record<string, string>> => {
  await new Copier(sftp, { status: () => undefined } as unknown as Operation).copy(source, "/to");
  return Object.fromEntries([...there].filter((entry): entry is [string, string] => entry[1] !== undefined));
};

it("follows a link to a folder", async () => {
  symlinkSync("real", at("link"));
  expect(await copied(at("link"))).toEqual({ "/to/link/sub/file": "x", "/to/link/top": "y" });
});

it("copies what is in the folder that a link leads to", async () => {
  symlinkSync("real", at("link"));
  expect(await copied(`${at("link")}/`)).toEqual({ "/to/sub/file": "x", "/to/top": "y" });
});

it("follows a link to a file", async () => {
  symlinkSync("real/top", at("link"));
  expect(await copied(at("link"))).toEqual({ "/to/link": "y" });
});

it("follows links in a folder", async () => {
  mkdirSync(at("tree"));
  symlinkSync("../real/sub", at("tree/folder"));
  symlinkSync("../real/sub", at("tree/twice"));
  symlinkSync("../real/top", at("tree/file"));
  expect(await copied(at("tree"))).toEqual({
    "/to/tree/folder/file": "x",
    "/to/tree/twice/file": "x",
    "/to/tree/file": "y",
  });
});

it("refuses a link that leads in a circle", async () => {
  symlinkSync("..", at("real/sub/up"));
  await expect(copied(at("real"))).rejects.toThrow(/real\/sub\/up is a link to a folder that it lies in/);
});

it("refuses links that lead nowhere, by their names", async () => {
  symlinkSync("nowhere", at("real/dangling"));
  await expect(copied(at("real"))).rejects.toThrow(/real\/dangling cannot be read, or is a link that leads nowhere/);
  symlinkSync("itself", at("itself"));
  await expect(copied(at("itself"))).rejects.toThrow(/ELOOP/);
});

it("refuses what is neither a file nor a folder instead of waiting for it", async () => {
  execFileSync("mkfifo", [at("real/pipe")]);
  await expect(copied(at("real"))).rejects.toThrow(/real\/pipe is neither a file nor a folder/);
});
