// What Markdown files point at is there: files, their headings, and the paths in backticks that begin with a folder at
// the top of the repository. Addresses of other sites are not asked.
import { execFileSync } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";

const list = (...patterns) =>
  execFileSync("git", ["ls-files", "-co", "--exclude-standard", "--", ...patterns])
    .toString()
    .trim()
    .split("\n")
    .filter((file) => existsSync(file));
const folders = new Set(list().flatMap((file) => (file.includes("/") ? [file.split("/")[0]] : [])));
/** Without blocks of code, whose brackets are no links. */
const prose = (markdown) => markdown.replace(/^ *```[^]*?^ *```/gm, "");

/** What GitHub calls a heading in an address. */
const anchorOf = (heading) =>
  heading
    .replace(/\[([^\]]*)\]\([^)]*\)/g, "$1")
    .trim()
    .toLowerCase()
    .replace(/[^\p{L}\p{N}_ -]/gu, "")
    .replace(/ /g, "-");
const anchorsOf = (markdown) => [...prose(markdown).matchAll(/^#+ (.*)$/gm)].map(([, heading]) => anchorOf(heading));

/** The links of a file, text in Markdown, that lead nowhere. */
function brokenLinks(file, markdown) {
  return [...prose(markdown).matchAll(/\]\(<?([^)\s>]+)>?\)/g)]
    .map(([, link]) => link)
    .filter((link) => !/^[a-z]+:/.test(link))
    .filter((link) => {
      const [target, anchor] = link.split("#");
      const found = target === "" ? file : path.join(path.dirname(file), target);
      if (target !== "" && !existsSync(found)) return true;
      const text = target === "" ? markdown : anchor !== undefined && readFileSync(found, "utf8");
      return anchor !== undefined && !anchorsOf(text).includes(anchor);
    });
}

/** The paths of this repository that a text names in backticks, and that are not there. */
function missingPaths(markdown) {
  return [...prose(markdown).matchAll(/`([\w.-]+\/[^`\s]*)`/g)]
    .map(([, place]) => place)
    .filter((place) => folders.has(place.split("/")[0]) && !/[{}]/.test(place))
    .filter((place) => {
      // Of a pattern, `<name>` or `*`, the folders before it.
      const known = place.split("/").filter((_part, index, parts) => !/[<*]/.test(parts.slice(0, index + 1).join("/")));
      return !existsSync(known.join("/"));
    });
}

describe.each(list("*.md"))("%s", (file) => {
  const markdown = readFileSync(file, "utf8");

  it("has links that lead somewhere", () => {
    expect(brokenLinks(file, markdown)).toEqual([]);
  });

  it("names paths that are there", () => {
    expect(missingPaths(markdown)).toEqual([]);
  });
});

describe("the check", () => {
  it("finds links to nowhere", () => {
    const markdown =
      "# A heading: `x`\n[a](#a-heading-x) [b](#other) [c](gone.md) [d](README.md#no) [e](https://x.example)";
    expect(brokenLinks("CONTRIBUTING.md", markdown)).toEqual(["#other", "gone.md", "README.md#no"]);
    expect(brokenLinks("a.md", "```\n[a](gone.md)\n```\n")).toEqual([]);
  });

  it("finds paths to nowhere", () => {
    const text =
      "`provider/gone.ts` `provider/<name>.ts` `provider/gone/<name>.ts` `tools/{a,b}` `keys/hmac.key` `test/*/`";
    expect(missingPaths(text)).toEqual(["provider/gone.ts", "provider/gone/<name>.ts"]);
  });
});
