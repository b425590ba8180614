/** Globs as the published plugin has them (gobwas/glob): `*` stops at `/`, `**` does not, `!` in front excludes. */
import { readdir, stat } from "node:fs/promises";
import path from "node:path";
import { RE2JS } from "re2js";

const token = /\*\*|\[!?[^\]]+\]|\\[^]|[^]/gu;

/** Whether a path matches. Takes time in proportion to the path's length for any glob. */
export interface Glob {
  test(file: string): boolean;
}

/**
 * Reads a glob. It becomes an expression of RE2, which does not backtrack, so a glob of many stars is harmless.
 * @throws Error naming a glob that cannot be read
 */
export function globPattern(glob: string): Glob {
  const unreadable = (reason: string): Error => new Error(`${JSON.stringify(glob)}: ${reason}`);
  let depth = 0;
  let source = "";
  for (const [part] of glob.matchAll(token)) {
    if (part === "**") source += ".*";
    else if (part === "*") source += "[^/]*";
    else if (part === "?") source += "[^/]";
    else if (part === "{") source += (depth++, "(?:");
    else if (part === "," && depth > 0) source += "|";
    else if (part === "}" && depth > 0) source += (depth--, ")");
    else if (part.startsWith("[") && part.length > 1) source += characterClass(part);
    else source += RE2JS.quote(part.length > 1 && part.startsWith("\\") ? part.slice(1) : part);
  }
  if (depth > 0) throw unreadable("a { has no }");
  try {
    const pattern = RE2JS.compile(source, RE2JS.DOTALL);
    return { test: (file) => pattern.matches(file) };
  } catch (error) {
    throw unreadable(`is no glob: ${(error as Error).message}`);
  }
}

/** `[!a-z]` → `[^a-z]`. Only a hyphen between two characters has a meaning in it: it makes a range. */
function characterClass(part: string): string {
  const negated = part.startsWith("[!");
  const characters = [...part.slice(negated ? 2 : 1, -1)];
  const inside = characters.map((character, index) =>
    character === "-" && index > 0 && index < characters.length - 1
      ? "-"
      : RE2JS.quote(character).replace(/^[-^]$/, "\\$&"),
  );
  return `[${negated ? "^" : ""}${inside.join("")}]`;
}

/** The reason why a glob cannot be read; undefined when it can. */
export function globProblem(glob: string): string | undefined {
  try {
    globPattern(glob.replace(/^!/, ""));
    return undefined;
  } catch (error) {
    return (error as Error).message;
  }
}

/**
 * Files below `folder` that the patterns choose, in order: the last pattern that matches a file decides. Paths are
 * relative. A link to a file counts as a file; links to folders are not followed, because they can form cycles.
 */
export async function findFiles(folder: string, globs: string[]): Promise<string[]> {
  const rules = globs.map((glob) => ({
    include: !glob.startsWith("!"),
    pattern: globPattern(glob.replace(/^!/, "")),
  }));
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const chosen: string[] = [];
  for (const entry of entries) {
    const file = path.join(entry.parentPath, entry.name);
    const relative = path.relative(folder, file);
    if (!(rules.findLast(({ pattern }) => pattern.test(relative))?.include ?? false)) continue;
    if (entry.isFile() || (entry.isSymbolicLink() && (await isFile(file)))) chosen.push(relative);
  }
  return chosen.sort();
}

async function isFile(link: string): Promise<boolean> {
  try {
    return (await stat(link)).isFile();
  } catch {
    // The target of the link does not exist.
    return false;
  }
}
