/** The certificate that identifies a host: for its own key, in its own name, for 30 days. */
import { createHash, type KeyObject } from "node:crypto";
import type { Authority } from "./authority.js";
import { isDnsLabel } from "../../../shared/dns-label.js";
import { day, serialNumber, x509 } from "./x509.js";

/** Life of a host's certificate, days. */
export const hostCertificateDays = 30;

const hostDomain = ".host.palisade.internal";

/** DNS name in the certificate of a host; the client requires it. */
export function hostName(hostId: string): string {
  return `${hostId}${hostDomain}`;
}

/** Host id of a name made by `hostName`; undefined for any other name. */
export function hostIdOf(name: string): string | undefined {
  const hostId = name.endsWith(hostDomain) ? name.slice(0, -hostDomain.length) : undefined;
  return isDnsLabel(hostId) ? hostId : undefined;
}

/** A certificate request was refused; the message says why. */
export class CertificateRefusedError extends Error {
  override readonly name = "CertificateRefusedError";
}

/** SHA-256 of a key's SubjectPublicKeyInfo, hex. */
export function publicKeyDigest(key: KeyObject | Uint8Array): string {
  const der = key instanceof Uint8Array ? key : key.export({ type: "spki", format: "der" });
  return createHash("sha256").update(der).digest("hex");
}

/**
 * `publicKeyDigest` of the key that a PKCS#10 request is for.
 *
 * @throws CertificateRefusedError when the request cannot be read.
 */
export function requestedKeyDigest(requestPem: string): string {
  return publicKeyDigest(new Uint8Array(readRequest(requestPem).publicKey.rawData));
}

function readRequest(requestPem: string): x509.Pkcs10CertificateRequest {
  try {
    return new x509.Pkcs10CertificateRequest(requestPem);
  } catch (error) {
    throw new CertificateRefusedError(`the certificate request cannot be read: ${(error as Error).message}`);
  }
}

/** @throws CertificateRefusedError when a text cannot be the id of a host. */
export function requireHostId(hostId: string): void {
  if (hostIdOf(hostName(hostId)) !== hostId) {
    throw new CertificateRefusedError(`${JSON.stringify(hostId)} is no host id`);
  }
}

/**
 * Checks a PKCS#10 request and signs the host's certificate. It does not know whose the id is, so only
 * `issueHostCertificate` calls it, which does.
 *
 * @param hostId of the requesting host; the common name and any alternative names of the request must name it.
 * @returns PEM, the leaf only: the CA signs it directly.
 * @throws CertificateRefusedError when possession of the key is not proven or a name differs.
 */
export async function signHostCertificate(
  authority: Authority,
  hostId: string,
  requestPem: string,
  now = new Date(),
): Promise<string> {
  const name = hostName(hostId);
  requireHostId(hostId);
  const request = readRequest(requestPem);
  if (!(await request.verify().catch(() => false))) {
    throw new CertificateRefusedError("the certificate request is not signed by the key it is for");
  }
  const commonNames = request.subjectName.getField("CN");
  if (commonNames.length !== 1 || (commonNames[0] !== hostId && commonNames[0] !== name)) {
    throw new CertificateRefusedError(`the common name is ${JSON.stringify(commonNames.join(", "))}, not ${hostId}`);
  }
  const alternative = request.extensions.find((extension) => extension instanceof x509.SubjectAlternativeNameExtension);
  for (const entry of alternative?.names.items ?? []) {
    if (entry.type !== "dns" || entry.value !== name) {
      throw new CertificateRefusedError(`the alternative name ${entry.type}:${entry.value} is not ${name}`);
    }
  }
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: serialNumber(),
    subject: `CN=${hostId}`,
    // As parsed: Go compares names byte by byte, and a text would be encoded anew.
    issuer: authority.parsed.subjectName,
    // A host whose clock is a little behind can use it at once.
    notBefore: new Date(now.getTime() - 10 * 60 * 1000),
    notAfter: new Date(now.getTime() + hostCertificateDays * day),
    publicKey: request.publicKey,
    signingKey: authority.key,
    signingAlgorithm: authority.algorithm,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
      new x509.SubjectAlternativeNameExtension([{ type: "dns", value: name }]),
      await x509.SubjectKeyIdentifierExtension.create(request.publicKey),
      await x509.AuthorityKeyIdentifierExtension.create(authority.parsed.publicKey),
    ],
  });
  return certificate.toString("pem") + "\n";
}

/** Whether less than a third of a certificate's life is left. */
export function isRenewalDue(notAfter: Date, now = new Date()): boolean {
  return notAfter.getTime() - now.getTime() < (hostCertificateDays * day) / 3;
}
