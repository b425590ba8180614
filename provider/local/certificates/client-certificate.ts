/** Certificates with which clients identify themselves to hosts. The common name is the client's role. */
import { type KeyObject, X509Certificate } from "node:crypto";
import { clientRoles, type ClientRole } from "../../../shared/client-roles.js";
import type { Authority } from "./authority.js";
import { day, serialNumber, x509 } from "./x509.js";

/** Days of life of a client's certificate where nothing else is said. */
export const clientCertificateDays = 7;

/** Clocks differ: a certificate is valid from a day before it is made. */
const backdate = day;

/**
 * Signs a client's certificate.
 *
 * @param days until its end.
 * @returns PEM.
 */
export async function signClientCertificate(
  authority: Authority,
  publicKey: KeyObject,
  { role, days }: { role: ClientRole; days: number },
  now = new Date(),
): Promise<string> {
  const subject = new x509.PublicKey(publicKey.export({ type: "spki", format: "der" }));
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: serialNumber(),
    subject: `CN=${role}`,
    // As parsed: Go compares names byte by byte, and a text would be encoded anew.
    issuer: authority.parsed.subjectName,
    notBefore: new Date(now.getTime() - backdate),
    notAfter: new Date(now.getTime() + days * day),
    publicKey: subject,
    signingKey: authority.key,
    signingAlgorithm: authority.algorithm,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.clientAuth]),
      await x509.SubjectKeyIdentifierExtension.create(subject),
      await x509.AuthorityKeyIdentifierExtension.create(authority.parsed.publicKey),
    ],
  });
  return certificate.toString("pem") + "\n";
}

/** What a client's certificate says. */
export interface ClientCertificate {
  /** Undefined for a common name that is no role. */
  role: ClientRole | undefined;
  /** Hex digits in lower case without leading zeros, as hosts name it. */
  serialNumber: string;
  notBefore: Date;
  notAfter: Date;
}

/** Reads a client's certificate. @throws Error when it is no certificate. */
export function readClientCertificate(pem: string): ClientCertificate {
  const certificate = new X509Certificate(pem);
  const commonName = /^CN=(.*)$/m.exec(certificate.subject)?.[1];
  return {
    role: clientRoles.find((role) => role === commonName),
    serialNumber: certificate.serialNumber.toLowerCase().replace(/^0+(?=.)/, ""),
    notBefore: new Date(certificate.validFrom),
    notAfter: new Date(certificate.validTo),
  };
}

/** Whether less than a third of a client certificate's life is left. */
export function isClientRenewalDue({ notBefore, notAfter }: ClientCertificate, now = new Date()): boolean {
  return notAfter.getTime() - now.getTime() < (notAfter.getTime() - notBefore.getTime()) / 3;
}

/** Whether a CA has issued a certificate. Both are PEM; false for what is no certificate. */
export function isIssuedBy(pem: string, authority: string): boolean {
  try {
    const issuer = new X509Certificate(authority);
    const certificate = new X509Certificate(pem);
    return certificate.checkIssued(issuer) && certificate.verify(issuer.publicKey);
  } catch {
    return false;
  }
}
