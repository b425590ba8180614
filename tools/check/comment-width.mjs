// Comments are at most as wide as .editorconfig says; prettier and gofmt leave them as they are. Prints each line that
// is wider, and fails when there is one. Usage: comment-width.mjs FILE...
import { readFileSync } from "node:fs";
import path from "node:path";

/** Characters in a line, as `max_line_length` of .editorconfig. */
export const widest = 120;

const slashes = /^\s*(?:\/\/|\/?\*)/;
const hash = /^\s*#/;

/** How a line begins that is a comment, by the ending of the file's name. Other files are not looked at. */
const comments = new Map([
  ...["ts", "mts", "cts", "js", "mjs", "cjs", "go", "proto", "c", "h"].map((ending) => [ending, slashes]),
  ...["sh", "py", "S", "yaml", "yml", "toml", "conf", "service", "socket", "mount", "target", "rules"].map((ending) => [
    ending,
    hash,
  ]),
]);

/** What another program writes. */
const generated = /^sdk\/|^hosts\/api\/gen\/|\.pb\.go$|\.connect\.go$|_bpfel|^provider\/schema\/inputs\.ts$/;

/** Addresses and what a tool reads cannot be wrapped. */
const whole = /:\/\/|^\s*(?:\/\/(?:go:|nolint)|(?:\/\/|\/\*) eslint-|# shellcheck )/;

/** Scripts without an ending say by their first line what they are in. */
function commentOf(file, text) {
  const known = comments.get(path.extname(file).slice(1));
  if (known) return known;
  const [first] = text.split("\n", 1);
  if (/^#!.*\bnode\b/.test(first)) return slashes;
  return /^#!/.test(first) || path.basename(file) === "Makefile" ? hash : undefined;
}

/**
 * The numbers of the lines of a file whose comment is too wide.
 *
 * @param {string} file its path in the repository
 * @param {string} text its content
 */
export function wideComments(file, text) {
  const comment = generated.test(file) ? undefined : commentOf(file, text);
  if (!comment) return [];
  return text
    .split("\n")
    .flatMap((line, index) =>
      [...line].length > widest && comment.test(line) && !whole.test(line) ? [index + 1] : [],
    );
}

function main(files) {
  for (const file of files) {
    for (const line of wideComments(file, readFileSync(file, "utf8"))) {
      console.error(`${file}:${line}: the comment is wider than ${widest} characters`);
      process.exitCode = 1;
    }
  }
}

if (process.argv[1] === import.meta.filename) main(process.argv.slice(2));
