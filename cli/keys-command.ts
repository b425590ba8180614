/** `palisade keys init`. */
import { initKeys } from "./keys.js";
import { type OutputOptions, writeDocument } from "./output.js";

/** JSON: the folder, and the files that were made by this run. */
export async function keysInit({ directory, output }: OutputOptions & { directory?: string }): Promise<number> {
  const report = await initKeys(directory);
  if (output === "json") {
    writeDocument(report);
    return 0;
  }
  const made = report.made.length === 0 ? "all there, nothing changed" : `made ${report.made.join(", ")}`;
  process.stdout.write(`keys in ${report.directory}: ${made}\n`);
  return 0;
}
