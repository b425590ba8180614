/** `palisade keys`. */
import type { ClientRole } from "../shared/client-roles.js";
import { makeClient } from "./client-keys.js";
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

/** Options of `palisade keys client`. */
export interface KeysClientOptions extends OutputOptions {
  role: ClientRole;
  /** Default: 7. */
  days?: number;
  /** Default: the folder in the operator's home. */
  keys?: string;
}

/** JSON: the folder, the role, the certificate's serial number and its end. */
export async function keysClient(directory: string, { output, ...options }: KeysClientOptions): Promise<number> {
  const report = await makeClient(directory, options);
  if (output === "json") {
    writeDocument(report);
    return 0;
  }
  const until = `until ${report.notAfter.toISOString()}`;
  process.stdout.write(
    `client ${report.role} in ${report.directory}: serial number ${report.serialNumber}, ${until}\n`,
  );
  return 0;
}
