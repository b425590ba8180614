/** Globs as the published plugin has them (gobwas/glob): `*` stops at `/`, `**` does not, `!` in front takes out again. */
import { readdir } from "node:fs/promises";
import path from "node:path";

const special: Record<string, string> = { "?": "[^/]", "{": "(?:", "}": ")" };

/** @throws Error naming a pattern that cannot be read */
export function globPattern(glob: string): RegExp {
  let depth = 0;
  const source = glob.replace(/\*\*|\[!?[^\]]+\]|\\.|[\s\S]/g, (token) => {
    if (token === "**") return ".*";
    if (token === "*") return "[^/]*";
    if (token.startsWith("[") && token.length > 1) return token.replace(/^\[!/, "[^").replaceAll("\\", "\\\\");
    if (token === "{") depth++;
    if (token === "," && depth > 0) return "|";
    if (token === "}" && depth-- === 0) return "\\}";
    return special[token] ?? (token.length === 2 ? token : token.replace(/[.+^$()|[\]\\]/, "\\$&"));
  });
  if (depth > 0) throw new Error(`${JSON.stringify(glob)}: a { has no }`);
  return new RegExp(`^${source}$`, "s");
}

/** Files below `folder` that the patterns choose, in order: the last pattern that fits a file decides. Paths are relative. */
export async function findFiles(folder: string, globs: string[]): Promise<string[]> {
  const rules = globs.map((glob) => ({
    include: !glob.startsWith("!"),
    pattern: globPattern(glob.replace(/^!/, "")),
  }));
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  return entries
    .filter((entry) => entry.isFile())
    .map((entry) => path.relative(folder, path.join(entry.parentPath, entry.name)))
    .filter((file) => rules.findLast(({ pattern }) => pattern.test(file))?.include ?? false)
    .sort();
}
