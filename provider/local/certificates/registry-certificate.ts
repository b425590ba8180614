/** A CA of its own for each local registry, and the registry's certificate. The CA's key is used once and not kept. */
import { day, ecdsa, privateKeyPem, serialNumber, webcrypto, x509 } from "./x509.js";

export interface RegistryCertificates {
  /** PEM. */
  authority: string;
  certificate: string;
  key: string;
}

/** Names under which a registry of this machine is reached; 10.0.2.2 is the machine as a guest of QEMU sees it. */
const names: { type: "dns" | "ip"; value: string }[] = [
  { type: "dns", value: "localhost" },
  { type: "ip", value: "127.0.0.1" },
  { type: "ip", value: "10.0.2.2" },
];

/** Valid for ten years: the registry lives as long as its stack, and its CA can sign nothing else. */
export async function makeRegistryCertificates(id: string): Promise<RegistryCertificates> {
  const notBefore = new Date(Date.now() - 10 * 60 * 1000);
  const notAfter = new Date(Date.now() + 3650 * day);
  const authorityKeys = await webcrypto.subtle.generateKey(ecdsa, false, ["sign", "verify"]);
  const authority = await x509.X509CertificateGenerator.createSelfSigned({
    serialNumber: serialNumber(),
    name: `CN=Palisade ${id} CA`,
    notBefore,
    notAfter,
    keys: authorityKeys,
    signingAlgorithm: ecdsa,
    extensions: [
      new x509.BasicConstraintsExtension(true, 0, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign, true),
      await x509.SubjectKeyIdentifierExtension.create(authorityKeys.publicKey),
    ],
  });
  const keys = await webcrypto.subtle.generateKey(ecdsa, true, ["sign", "verify"]);
  const certificate = await x509.X509CertificateGenerator.create({
    serialNumber: serialNumber(),
    subject: `CN=${id}`,
    issuer: authority.subject,
    notBefore,
    notAfter,
    publicKey: keys.publicKey,
    signingKey: authorityKeys.privateKey,
    signingAlgorithm: ecdsa,
    extensions: [
      new x509.BasicConstraintsExtension(false, undefined, true),
      new x509.KeyUsagesExtension(x509.KeyUsageFlags.digitalSignature, true),
      new x509.ExtendedKeyUsageExtension([x509.ExtendedKeyUsage.serverAuth]),
      new x509.SubjectAlternativeNameExtension(names),
      await x509.AuthorityKeyIdentifierExtension.create(authorityKeys.publicKey),
    ],
  });
  return {
    authority: authority.toString("pem") + "\n",
    certificate: certificate.toString("pem") + "\n",
    key: await privateKeyPem(keys.privateKey),
  };
}
