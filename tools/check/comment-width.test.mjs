import { readFileSync } from "node:fs";
import { expect, it } from "vitest";
import { wideComments, widest } from "./comment-width.mjs";

const words = (length) => "word ".repeat(40).slice(0, length);
const line = (start, length = widest + 1) => start + words(length - start.length);

it("has the limit of .editorconfig", () => {
  expect(readFileSync(".editorconfig", "utf8")).toContain(`max_line_length = ${widest}\n`);
});

it.each([
  ["a.ts", "// "],
  ["a.ts", " * "],
  ["a.ts", "  /** "],
  ["a.go", "\t// "],
  ["a.proto", "  // "],
  ["a.sh", "  # "],
  ["x.service", "# "],
])("%s: finds a wide comment that begins with %j, and none of the full width", (file, start) => {
  expect(wideComments(file, `first\n${line(start)}\n`)).toEqual([2]);
  expect(wideComments(file, `first\n${line(start, widest)}\n`)).toEqual([]);
});

it("knows a script without an ending by its first line", () => {
  expect(wideComments("bin/x", `#!/usr/bin/env node\n${line("// ")}\n${line("# ")}`)).toEqual([2]);
  expect(wideComments("bin/x", `#!/bin/bash\n${line("// ")}\n${line("# ")}`)).toEqual([3]);
});

it("counts characters, not bytes", () => {
  expect(wideComments("a.ts", `// ${"é".repeat(widest - 3)}`)).toEqual([]);
});

it.each([
  ["an address", "a.ts", line("// https://example.test/ ")],
  ["a line for a tool", "a.go", line("//go:generate ")],
  ["code", "a.ts", line("const text = ")],
  ["a comment of a script in a string", "a.ts", line("# ")],
  ["generated code", "sdk/a.ts", line("// ")],
  ["prose", "a.md", line("# ")],
])("leaves out %s", (_what, file, text) => {
  expect(wideComments(file, text)).toEqual([]);
});
