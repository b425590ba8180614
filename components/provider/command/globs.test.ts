import { expect, it } from "vitest";
import { globPattern } from "./globs.js";

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
])("%s and %s: %s", (glob, file, fits) => {
  expect(globPattern(glob).test(file)).toBe(fits);
});

it("refuses an open brace", () => {
  expect(() => globPattern("{a,b")).toThrow('"{a,b": a { has no }');
});
