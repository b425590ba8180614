/** A client certificate of a role, with its key, in a folder of its own. */
import { createPrivateKey, createPublicKey } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { readAuthority } from "../provider/local/certificates/authority.js";
import {
  clientCertificateDays,
  readClientCertificate,
  signClientCertificate,
} from "../provider/local/certificates/client-certificate.js";
import { writeFileAtomic } from "../provider/system/atomic-file.js";
import type { ClientRole } from "../shared/client-roles.js";
import { defaultKeysDirectory, hostKeyFiles, keyPair } from "../shared/directories.js";
import { generateKey } from "./certificates.js";
import { ensurePrivateDirectory, ensurePrivateFile } from "./private-files.js";

/** What `keys client` did. */
export interface ClientReport {
  directory: string;
  role: ClientRole;
  serialNumber: string;
  notAfter: Date;
}

/**
 * Makes `client.key`, `client.crt` and `ca.crt`. A folder that has them already gets a new certificate for the same
 * key.
 *
 * @param directory where; made with mode 0700.
 * @param days until the certificate's end, default 7.
 * @param keys folder of `palisade keys init`, with the CA's key.
 * @throws Error when the folder holds a certificate of another role or a revoked one, or files that others can read.
 */
export async function makeClient(
  directory: string,
  {
    role,
    days = clientCertificateDays,
    keys = defaultKeysDirectory(),
  }: { role: ClientRole; days?: number; keys?: string },
): Promise<ClientReport> {
  const folder = path.resolve(directory);
  const at = (file: string) => path.join(keys, file);
  const { certificateFile, keyFile } = hostKeyFiles.certificateAuthority;
  const authority = await readAuthority({ certificateFile: at(certificateFile), keyFile: at(keyFile) }, "--keys");
  const client = keyPair(folder, "client");
  if (existsSync(client.certificateFile)) {
    const { role: present, serialNumber } = readClientCertificate(readFileSync(client.certificateFile, "utf8"));
    if (authority.revoked.includes(serialNumber)) {
      throw new Error(`${client.certificateFile}: is revoked, so its key gets no other one; name another folder`);
    }
    if (present !== role) {
      const found = present === undefined ? "a certificate of no role" : `a certificate of the role ${present}`;
      throw new Error(`${client.certificateFile}: is ${found}, not of ${role}; name another folder`);
    }
  }
  ensurePrivateDirectory(folder);
  const key = createPrivateKey(await ensurePrivateFile(client.keyFile, () => generateKey("ec-p256")));
  const certificate = await signClientCertificate(authority, createPublicKey(key), { role, days });
  await writeFileAtomic(path.join(folder, "ca.crt"), authority.certificate);
  await writeFileAtomic(client.certificateFile, certificate);
  const { serialNumber, notAfter } = readClientCertificate(certificate);
  return { directory: folder, role, serialNumber, notAfter };
}
