import { expect, it } from "vitest";
import { registryNames } from "./tooling-image.js";

const inProgram = (text: string) => registryNames(Buffer.from(`\0\xff${text}\0`, "latin1"));

it.each([
  ["alone", "\0registry.example/project-copacetic/copacetic\0", ["registry.example"]],
  [
    "behind another text, of which the last letter may be its first",
    "%sr.example/project-copacetic/copacetic",
    ["r.example", "sr.example"],
  ],
  [
    "more than one",
    "a.example/project-copacetic/copacetic b.example/project-copacetic/copacetic/x",
    ["a.example", "b.example"],
  ],
  ["none", "copacetic/project-copacetic/copacetic", []],
])("finds the names that the registry may have: %s", (_what, text, names) => {
  expect(inProgram(text)).toEqual(expect.arrayContaining(names));
  if (names.length === 0) expect(inProgram(text)).toEqual([]);
});
