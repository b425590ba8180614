/** `palisade vulndb`: the vulnerability database that images are scanned with, made from Debian's own changelogs. */
import { defaultCacheDirectory } from "../shared/directories.js";
import { buildDatabase } from "../provider/local/patching/database-builder.js";
import { defaultDatabaseDirectory, findDatabase, type Database } from "../provider/local/patching/database.js";
import { PropertyError } from "../provider/backends/errors.js";
import { type OutputOptions, writeDocument } from "./output.js";

/** Options of both commands. */
export interface VulndbOptions extends OutputOptions {
  /** Default: a folder in the cache. */
  directory?: string;
}

export interface VulndbBuildOptions extends VulndbOptions {
  suite: string;
  ifAbsent?: boolean;
}

const directoryOf = ({ directory }: VulndbOptions) => directory ?? defaultDatabaseDirectory(defaultCacheDirectory());

/** JSON: folder, digest, and what the database covers. */
export async function showDatabase(options: VulndbOptions): Promise<number> {
  show(await findDatabase(directoryOf(options)), options);
  return 0;
}

/** Prints what {@link showDatabase} prints. */
export async function buildVulnerabilityDatabase(packages: string[], options: VulndbBuildOptions): Promise<number> {
  const directory = directoryOf(options);
  if (!options.ifAbsent || !(await isThere(directory))) {
    const status = (message: string) => void process.stderr.write(`${message}\n`);
    await buildDatabase({ suite: options.suite, packages }, directory, defaultCacheDirectory(), status);
  } else if (options.output === "text") return 0;
  show(await findDatabase(directory), options);
  return 0;
}

async function isThere(directory: string): Promise<boolean> {
  try {
    await findDatabase(directory);
    return true;
  } catch (error) {
    if (error instanceof PropertyError) return false;
    throw error;
  }
}

function show({ directory, digest, description }: Database, { output }: OutputOptions): void {
  if (output === "json") return writeDocument({ directory, digest, ...description });
  const lines = [`database   ${directory}`, `digest     ${digest}`];
  if (description) {
    const { suite, packages, covers, advisories, builtAt } = description;
    lines.push(`suite      ${suite}, for ${packages.join(", ")}: ${covers.length} source packages`);
    lines.push(`fixes      ${advisories} vulnerabilities that some version fixes`, `made       ${builtAt}`);
  }
  process.stdout.write(`${lines.join("\n")}\n`);
}
