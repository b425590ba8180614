import { expect, it } from "vitest";
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { findFiles, globPattern } from "./globs.js";

it.each([
  ["*.txt", "a.txt", true],
  ["*.txt", "sub/a.txt", false],
  ["src/**.js", "src/deep/a.js", true],
  ["**", "any/thing", true],
  ["a?c", "abc", true],
  ["a?c", "a/c", false],
  ["[ab].{js,ts}", "b.ts", true],
  ["[!ab].js", "a.js", false],
  ["a.b+c", "a.b+c", true],
  ["a.b", "axb", false],
  ["\\*", "*", true],
  ["\\*", "a", false],
  ["a?c", "a😀c", true],
  ["[!a]", "😀", true],
  ["[a-c]1", "b1", true],
  ["[a-]1", "-1", true],
  ["[.d]", "d", true],
  ["\\d", "d", true],
  ["\\d", "1", false],
  ["{a,b{c,d}}.x", "bd.x", true],
  ["a|b", "a", false],
  ["(a)", "(a)", true],
  ["^a$", "^a$", true],
  ["]", "]", true],
  ["a,b}", "a,b}", true],
  ["**", "line\nend", true],
  ["*.{", "x", undefined],
])("%s and %s: %s", (glob, file, fits) => {
  if (fits === undefined) expect(() => globPattern(glob)).toThrow(JSON.stringify(glob));
  else expect(globPattern(glob).test(file)).toBe(fits);
});

it("refuses an open brace", () => {
  expect(() => globPattern("{a,b")).toThrow('"{a,b": a { has no }');
});

it.each(["[z-a]", "a[b-a]c"])("refuses %s, by its name", (glob) => {
  expect(() => globPattern(glob)).toThrow(`${JSON.stringify(glob)}: is no glob`);
});

it.each([
  ["*a*a*a*a*a*a*a*a*b", "a".repeat(5_000)],
  ["**a**a**a**a**a**a**a**a**b", "a".repeat(5_000)],
  ["*".repeat(200) + "b", "a".repeat(5_000)],
  ["{a,aa}".repeat(30) + "b", "a".repeat(5_000)],
  ["{*a,*aa,*aaa}{*a,*aa}{*a,*aa}{*a,*aa}b", "a".repeat(5_000)],
])("takes no time for %s", (glob, file) => {
  const started = Date.now();
  expect(globPattern(glob).test(file)).toBe(false);
  expect(Date.now() - started).toBeLessThan(5_000);
});

it("finds files and links to files, and does not follow links to folders", async () => {
  const folder = mkdtempSync(path.join(tmpdir(), "palisade-globs-"));
  try {
    mkdirSync(path.join(folder, "sub"));
    writeFileSync(path.join(folder, "sub/file"), "");
    symlinkSync("sub/file", path.join(folder, "link"));
    symlinkSync(".", path.join(folder, "circle"));
    symlinkSync("nowhere", path.join(folder, "dangling"));
    expect(await findFiles(folder, ["**"])).toEqual(["link", "sub/file"]);
  } finally {
    rmSync(folder, { recursive: true });
  }
});
