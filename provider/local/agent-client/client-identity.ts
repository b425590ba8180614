/** Renewal of the client's own certificate, by whoever uses it and has the CA's key. */
import { createPrivateKey, createPublicKey } from "node:crypto";
import { readFile } from "node:fs/promises";
import type { HostConnection, KeyPairFiles } from "../../backends/index.js";
import { writeFileAtomic } from "../../system/atomic-file.js";
import { readAuthority } from "../certificates/authority.js";
import {
  clientCertificateDays,
  isClientRenewalDue,
  isIssuedBy,
  readClientCertificate,
  signClientCertificate,
} from "../certificates/client-certificate.js";
import { trustedAuthorities } from "../certificates/replaced-authority.js";
import { authorityBeside } from "./renewal.js";

/** `due`: less than a third of the life is left, and the CA's key is not here. */
export type ClientIdentityState = "valid" | "renewed" | "due";

/** How somebody gets a new certificate who does not have the CA's key. */
export const renewalAdvice =
  "where the CA's key is, run `palisade keys client FOLDER --role ROLE`, and bring the new folder here";

/**
 * Renews the certificate when less than a third of its life is left: for the same key and role, for 7 days. A
 * certificate that this CA has not issued, or that names no role, is left alone.
 *
 * @param connection its certificate and key, and the CA of the host.
 * @param authority finds the CA's files; default: beside the certificate.
 * @throws Error when the certificate has expired and cannot be renewed.
 */
export async function renewClientIdentity(
  connection: Pick<HostConnection, "certificateAuthority" | "clientCertificateFile" | "clientKeyFile">,
  authority: () => Promise<KeyPairFiles | undefined> = async () => undefined,
): Promise<ClientIdentityState> {
  const { clientCertificateFile: file, clientKeyFile } = connection;
  // What cannot be read is reported by the connection.
  const pem = await readFile(file, "utf8").catch(() => undefined);
  const certificate = pem === undefined ? undefined : parse(pem);
  if (pem === undefined || certificate?.role === undefined || !isClientRenewalDue(certificate)) return "valid";
  if (!trustedAuthorities(connection).some((authority) => isIssuedBy(pem, authority))) return "valid";
  const { role, notAfter } = certificate;
  const files = (await authority()) ?? (await authorityBeside(connection));
  const refuse = (reason: string, cause?: unknown): ClientIdentityState => {
    if (notAfter.getTime() > Date.now()) return "due";
    const expired = `clientIdentity.certificateFile: ${file} has expired on ${notAfter.toISOString()}`;
    throw new Error(`${expired}; ${reason}`, { cause });
  };
  if (!files) return refuse(renewalAdvice);
  try {
    const key = createPublicKey(createPrivateKey(await readFile(clientKeyFile, "utf8")));
    const signer = await readAuthority(files);
    // It was revoked because its key is lost, so the key must not get another one.
    if (signer.revoked.includes(certificate.serialNumber)) throw new Error("it is revoked");
    await writeFileAtomic(file, await signClientCertificate(signer, key, { role, days: clientCertificateDays }));
  } catch (error) {
    return refuse(`it cannot be renewed: ${(error as Error).message}`, error);
  }
  return "renewed";
}

function parse(pem: string) {
  try {
    return readClientCertificate(pem);
  } catch {
    return undefined;
  }
}
