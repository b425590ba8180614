/** A certificate authority from a pair of PEM files: EC P-256 or RSA. */
import { createPrivateKey, createPublicKey, X509Certificate } from "node:crypto";
import { readFile } from "node:fs/promises";
import type { KeyPairFiles } from "../../backends/index.js";
import { readRevocations } from "./revocations.js";
import { webcrypto, x509 } from "./x509.js";

export interface Authority {
  /** PEM. */
  certificate: string;
  parsed: x509.X509Certificate;
  key: webcrypto.CryptoKey;
  algorithm: { name: "ECDSA" | "RSASSA-PKCS1-v1_5"; hash: "SHA-256" };
  /** Serial numbers of its client certificates that hosts have to refuse. */
  revoked: string[];
}

/**
 * Reads a CA.
 *
 * @param field path of the property that names the files, for messages.
 * @throws when a file is unreadable, the certificate is no CA, or the key is not its key.
 */
export async function readAuthority(files: KeyPairFiles, field = "certificateAuthority"): Promise<Authority> {
  const pem = async (property: keyof KeyPairFiles) => {
    try {
      return await readFile(files[property], "utf8");
    } catch (error) {
      throw new Error(
        `${field}.${property}: ${files[property]} cannot be read: ${(error as Error).message}; run \`palisade keys init\``,
      );
    }
  };
  const certificate = await pem("certificateFile");
  const node = new X509Certificate(certificate);
  if (!node.ca) throw new Error(`${field}.certificateFile: ${files.certificateFile} is not the certificate of a CA`);
  const privateKey = createPrivateKey(await pem("keyFile"));
  const publicDer = createPublicKey(privateKey).export({ type: "spki", format: "der" });
  if (!publicDer.equals(node.publicKey.export({ type: "spki", format: "der" }))) {
    throw new Error(`${field}.keyFile: ${files.keyFile} is not the key of ${files.certificateFile}`);
  }
  const ec = privateKey.asymmetricKeyType === "ec";
  if (ec && privateKey.asymmetricKeyDetails?.namedCurve !== "prime256v1") {
    throw new Error(`${field}.keyFile: ${files.keyFile}: only P-256 is supported of elliptic curves`);
  }
  const algorithm = { name: ec ? "ECDSA" : "RSASSA-PKCS1-v1_5", hash: "SHA-256" } as const;
  const key = await webcrypto.subtle.importKey(
    "pkcs8",
    privateKey.export({ type: "pkcs8", format: "der" }),
    ec ? { name: "ECDSA", namedCurve: "P-256" } : algorithm,
    false,
    ["sign"],
  );
  const parsed = new x509.X509Certificate(certificate);
  const revoked = await readRevocations(files.certificateFile);
  return { certificate: certificate.trim() + "\n", parsed, key, algorithm, revoked };
}
