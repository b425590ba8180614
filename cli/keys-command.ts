/** `palisade keys`. */
import type { ClientRole } from "../shared/client-roles.js";
import { makeClient } from "./client-keys.js";
import { initKeys } from "./keys.js";
import { type OutputOptions, writeDocument } from "./output.js";
import { rotateAuthority, type RotateOptions } from "./rotate.js";
import { revokeClient, type RevokeOptions } from "./revoke.js";
import { printable } from "./table.js";

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

/** JSON: the serial number, and the hosts of the stack. Ends with 1 while a host does not refuse the certificate. */
export async function keysRevoke({ output, ...options }: RevokeOptions & OutputOptions): Promise<number> {
  const report = await revokeClient(options);
  const failed = report.hosts.some(({ error }) => error !== undefined);
  if (output === "json") {
    writeDocument(report);
    return failed ? 1 : 0;
  }
  process.stdout.write(`${report.serialNumber} is revoked; new hosts refuse it from their first contact on\n`);
  for (const { name, error } of report.hosts) {
    process.stdout.write(`host ${name}: ${error === undefined ? "refuses it" : printable(error)}\n`);
  }
  if (failed) process.stderr.write("palisade keys revoke: not all hosts refuse it yet; repeat it when they answer\n");
  return failed ? 1 : 0;
}

/** JSON: how far the rotation is, and the hosts of the stack. Ends with 1 while the step is not done on a host. */
export async function keysRotate({ output, ...options }: RotateOptions & OutputOptions): Promise<number> {
  const report = await rotateAuthority(options);
  const failed = report.hosts.some(({ error }) => error !== undefined);
  const exitCode = failed || (options.finish && report.state !== "finished") ? 1 : 0;
  if (output === "json") {
    writeDocument(report);
    return exitCode;
  }
  const done = report.state === "finished" ? "accepts the new CA only" : "accepts both CAs";
  for (const { name, error } of report.hosts) {
    process.stdout.write(`host ${name}: ${error === undefined ? done : printable(error)}\n`);
  }
  if (failed) {
    const nothing = options.finish && report.state === "prepared" ? "; the old CA is still in use" : "";
    process.stderr.write(`palisade keys rotate: not done on all hosts${nothing}; repeat it when they answer\n`);
  } else if (report.state === "prepared") {
    process.stdout.write("Repeat this for each stack with hosts of this CA, and then with --finish\n");
  } else {
    process.stdout.write("The new CA is in use; repeat this for each other stack, and run pulumi up --refresh\n");
  }
  return exitCode;
}
