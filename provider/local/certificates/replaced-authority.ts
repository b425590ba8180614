/**
 * CAs of a folder of keys of which one takes the other's place: `ca.crt` is in use, `ca.next.crt` is to take its place,
 * and `ca.previous.crt` was in use before. A state may name any of them until it is refreshed.
 */
import { readFileSync } from "node:fs";
import path from "node:path";

/** Name of a CA's files, without `.crt` and `.key`. */
export type AuthorityName = "ca" | "ca.next" | "ca.previous";

/** How a host is trusted, and the folder of the client's certificate. */
export interface AuthorityReference {
  certificateAuthority: string;
  clientCertificateFile: string;
}

function read(folder: string, name: AuthorityName): string | undefined {
  try {
    return readFileSync(path.join(folder, `${name}.crt`), "utf8").trim();
  } catch {
    return undefined;
  }
}

/**
 * Whether the CA of a connection is one of those beside the client's certificate, so that `ca.crt` stands for it now.
 */
export function isOfFolder({ certificateAuthority, clientCertificateFile }: AuthorityReference): boolean {
  const folder = path.dirname(clientCertificateFile);
  return (["ca", "ca.next", "ca.previous"] as const).some((name) => read(folder, name) === certificateAuthority.trim());
}

/**
 * The CAs, PEM, of one of which the host's certificate has to be: that of the connection, or those that stand for it
 * now. A CA that was replaced is not among them.
 */
export function trustedAuthorities(connection: AuthorityReference): string[] {
  if (!isOfFolder(connection)) return [connection.certificateAuthority];
  const folder = path.dirname(connection.clientCertificateFile);
  return (["ca", "ca.next"] as const).map((name) => read(folder, name)).filter((pem) => pem !== undefined);
}
