/** Revocation of a client certificate: recorded beside the CA, and declared to the hosts of a stack. */
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { isIssuedBy, readClientCertificate } from "../provider/local/certificates/client-certificate.js";
import { recordRevocations } from "../provider/local/certificates/revocations.js";
import { defaultKeysDirectory, hostKeyFiles } from "../shared/directories.js";
import { clientOf, withAgent } from "./agent.js";
import { readStack } from "./stack-state.js";

/** Options of `palisade keys revoke`; `serial` or `certificate` is given. */
export interface RevokeOptions {
  serial?: string;
  /** PEM. */
  certificate?: string;
  /** Default: the folder in the operator's home. */
  keys?: string;
  stack?: string;
}

/** What `keys revoke` did. */
export interface RevokeReport {
  serialNumber: string;
  /** The hosts of the stack; `error` says why one does not refuse the certificate yet. */
  hosts: { name: string; hostId?: string; error?: string }[];
}

/**
 * Revokes a client certificate. What is recorded reaches the hosts that do not answer now when the provider
 * reaches them, and new hosts at first contact. It may be repeated.
 *
 * @throws Error when the certificate is of another CA or is the one that this command shows to hosts; then nothing is
 * recorded. When the stack cannot be read, the revocation is recorded, and the message says so.
 */
export async function revokeClient(options: RevokeOptions): Promise<RevokeReport> {
  const { keys = defaultKeysDirectory(), stack } = options;
  const at = (file: string) => path.join(keys, file);
  const authorityFile = at(hostKeyFiles.certificateAuthority.certificateFile);
  if (!existsSync(authorityFile)) throw new Error(`${authorityFile}: missing; run \`palisade keys init\``);
  const authority = readFileSync(authorityFile, "utf8");
  const serialNumber = serialNumberOf(options, authority, authorityFile);
  refuseOwn(serialNumber, at(hostKeyFiles.clientIdentity.certificateFile));
  const all = await recordRevocations(authorityFile, [serialNumber]);
  const { hosts } = await readStack(stack).catch((cause: Error) => {
    throw new Error(`${serialNumber} is recorded as revoked, and no host was told: ${cause.message}`, { cause });
  });
  const reports = await Promise.all(
    hosts.map(async ({ name, connection }) => {
      if (!connection)
        return { name, error: "has not answered yet; it refuses the certificate from its first contact on" };
      const { hostId } = connection;
      if (connection.certificateAuthority.trim() !== authority.trim()) {
        return { name, hostId, error: `is of another CA than ${authorityFile}` };
      }
      try {
        refuseOwn(serialNumber, clientOf(connection).clientCertificateFile);
        await withAgent(connection, (agent) => agent.hosts.revokeClientCertificates({ serialNumbers: all }));
        return { name, hostId };
      } catch (error) {
        return { name, hostId, error: (error as Error).message };
      }
    }),
  );
  return { serialNumber, hosts: reports };
}

function serialNumberOf({ serial, certificate }: RevokeOptions, authority: string, authorityFile: string): string {
  if (certificate === undefined) return serial!;
  if (!isIssuedBy(certificate, authority)) {
    throw new Error(
      `--certificate: is of another CA than ${authorityFile}; hosts refuse it already, or --keys is another folder`,
    );
  }
  const { role, serialNumber } = readClientCertificate(certificate);
  if (role === undefined) throw new Error("--certificate: is no client's: its common name is no role");
  return serialNumber;
}

/** Whoever revokes the only certificate that is left can reach no host any more. */
function refuseOwn(serialNumber: string, file: string): void {
  if (!existsSync(file) || readClientCertificate(readFileSync(file, "utf8")).serialNumber !== serialNumber) return;
  const key = file.replace(/\.crt$/, ".key");
  throw new Error(
    `${serialNumber} is the certificate with which hosts are reached (${file}). Move ${file} and ${key} away, run ` +
      "`palisade keys init`, which makes new ones, and repeat this",
  );
}
