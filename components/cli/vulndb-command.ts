/** `palisade vulndb`: the vulnerability database that images are scanned with, made from Debian's own changelogs. */
import path from "node:path";
import { parseArgs } from "node:util";
import { cacheDirectory } from "../internal/directories.js";
import { buildDatabase } from "../provider/patching/database-builder.js";
import { defaultDatabaseDirectory, findDatabase, type Database } from "../provider/patching/database.js";
import { PropertyError } from "../provider/resource.js";
import type { Command } from "./commands.js";

export const vulndbCommand: Command = {
  usage:
    "vulndb build [--suite NAME] [--directory DIR] [--if-absent] PACKAGE... | vulndb show [--directory DIR] [--json]",
  help: "the vulnerability database, from the changelogs of a Debian suite's packages",
  async run(args) {
    const { values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: {
        suite: { type: "string", default: "trixie" },
        directory: { type: "string" },
        "if-absent": { type: "boolean", default: false },
        json: { type: "boolean", default: false },
      },
    });
    const [action, ...packages] = positionals;
    const directory = path.resolve(values.directory ?? defaultDatabaseDirectory(cacheDirectory()));
    if (action === "show" && packages.length === 0) {
      process.stdout.write(summary(await findDatabase(directory), values.json));
      return 0;
    }
    if (action !== "build" || packages.length === 0) {
      process.stderr.write("palisade vulndb: expected build PACKAGE... or show, e.g. palisade vulndb build nginx\n");
      return 2;
    }
    if (values["if-absent"] && (await isThere(directory))) return 0;
    const status = (message: string) => void process.stderr.write(`${message}\n`);
    await buildDatabase({ suite: values.suite, packages }, directory, cacheDirectory(), status);
    process.stdout.write(summary(await findDatabase(directory), values.json));
    return 0;
  },
};

async function isThere(directory: string): Promise<boolean> {
  try {
    await findDatabase(directory);
    return true;
  } catch (error) {
    if (error instanceof PropertyError) return false;
    throw error;
  }
}

function summary({ directory, digest, description }: Database, asJson: boolean): string {
  if (asJson) return `${JSON.stringify({ directory, digest, ...description }, undefined, 2)}\n`;
  const lines = [`database   ${directory}`, `digest     ${digest}`];
  if (description) {
    const { suite, packages, covers, advisories, builtAt } = description;
    lines.push(`suite      ${suite}, for ${packages.join(", ")}: ${covers.length} source packages`);
    lines.push(`fixes      ${advisories} vulnerabilities that some version fixes`, `made       ${builtAt}`);
  }
  return `${lines.join("\n")}\n`;
}
