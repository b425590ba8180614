/** Key pairs and X.509 certificates by WebCrypto, as PEM. */
import "reflect-metadata";
import { randomBytes, webcrypto } from "node:crypto";
import * as x509 from "@peculiar/x509";

const day = 24 * 60 * 60 * 1000;
/** Clocks differ: a certificate is valid from a day before it is made. */
const backdate = day;

/** What a key is generated for. Every UEFI firmware and the kernel's PKCS#7 parser know RSA 2048. */
export type KeyKind = "rsa-2048" | "ec-p256";

const generation = {
  "rsa-2048": {
    name: "RSASSA-PKCS1-v1_5",
    hash: "SHA-256",
    modulusLength: 2048,
    publicExponent: new Uint8Array([1, 0, 1]),
  },
  "ec-p256": { name: "ECDSA", namedCurve: "P-256", hash: "SHA-256" },
} as const;

/** A private key and its public one. */
export interface KeyPair {
  kind: KeyKind;
  keys: webcrypto.CryptoKeyPair;
}

/** Generates a key; returns PKCS#8 PEM without encryption, as openssl reads it. */
export async function generateKey(kind: KeyKind): Promise<string> {
  const keys = await webcrypto.subtle.generateKey(generation[kind], true, ["sign", "verify"]);
  return `${x509.PemConverter.encode(await webcrypto.subtle.exportKey("pkcs8", keys.privateKey), "PRIVATE KEY")}\n`;
}

/** Reads a PKCS#8 PEM made by {@link generateKey}. The public key is derived from it. */
export async function readKey(kind: KeyKind, pem: string): Promise<KeyPair> {
  const algorithm = generation[kind];
  const der = x509.PemConverter.decode(pem)[0];
  if (!der) throw new Error("no PEM block of a private key");
  const privateKey = await webcrypto.subtle.importKey("pkcs8", der, algorithm, true, ["sign"]);
  const { kty, n, e, crv, x, y } = await webcrypto.subtle.exportKey("jwk", privateKey);
  const publicJwk = kind === "rsa-2048" ? { kty, n, e } : { kty, crv, x, y };
  const publicKey = await webcrypto.subtle.importKey("jwk", publicJwk as webcrypto.JsonWebKey, algorithm, true, [
    "verify",
  ]);
  return { kind, keys: { privateKey, publicKey } };
}

/** What a certificate is for; it decides the extensions. */
export type Role =
  /** A root: signs certificates. */
  | "authority"
  /**
   * Signs images and policies; trusted by itself, as an entry of the firmware's db. Basic constraints say that it is no
   * CA; no key usage, as firmware of the field checks that in different ways.
   */
  | "signer";

/** A certificate to be made. */
export interface CertificateRequest {
  commonName: string;
  role: Role;
  /** How many days it is valid. */
  days: number;
  subject: KeyPair;
}

/** Makes a certificate that signs itself; returns PEM. */
export async function makeCertificate(request: CertificateRequest): Promise<string> {
  const name = `CN=${request.commonName}`;
  const { keys, kind } = request.subject;
  const now = Date.now();
  const certificate = await x509.X509CertificateGenerator.create({
    // A positive number of 16 bytes: the first bit is cleared, the second set.
    serialNumber: Buffer.from(
      randomBytes(16).map((byte, index) => (index === 0 ? (byte & 0x3f) | 0x40 : byte)),
    ).toString("hex"),
    subject: name,
    issuer: name,
    notBefore: new Date(now - backdate),
    notAfter: new Date(now + request.days * day),
    publicKey: keys.publicKey,
    signingKey: keys.privateKey,
    signingAlgorithm: generation[kind],
    extensions: [
      ...extensions(request.role),
      await x509.SubjectKeyIdentifierExtension.create(keys.publicKey),
      await x509.AuthorityKeyIdentifierExtension.create(keys.publicKey),
    ],
  });
  return `${certificate.toString("pem")}\n`;
}

function extensions(role: Role): x509.Extension[] {
  switch (role) {
    case "authority":
      return [
        new x509.BasicConstraintsExtension(true, undefined, true),
        new x509.KeyUsagesExtension(x509.KeyUsageFlags.keyCertSign | x509.KeyUsageFlags.cRLSign, true),
      ];
    case "signer":
      return [new x509.BasicConstraintsExtension(false, undefined, true)];
  }
}
