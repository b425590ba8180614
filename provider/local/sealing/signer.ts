/**
 * Those who sign: a certificate and its key by reference, in a file or behind PKCS#11. openssl signs; the key never
 * leaves its place, and no argument or environment holds a secret.
 */
import { createHash, createPrivateKey, verify, X509Certificate, type KeyObject } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { SigningKey } from "../../backends/index.js";
import { run, type CommandOptions } from "../../system/command.js";
import { PropertyError } from "../../backends/errors.js";
import { keyId } from "./dsse.js";
import { parsePkcs11Uri } from "../../../shared/pkcs11-uri.js";
import type { SealTools } from "./tools.js";

/** What a signer is for; it decides the kinds of keys that are taken. */
export type SignerRole = "layerSigner" | "sealSigner" | "imageSigner";

const kinds: Record<SignerRole, { fits: (key: KeyObject) => boolean; what: string }> = {
  layerSigner: { fits: isRsa, what: "an RSA key of 2048 bits or more" },
  sealSigner: {
    fits: (key) => isRsa(key) || isP256(key),
    what: "an EC key on P-256, or an RSA key of 2048 bits or more",
  },
  imageSigner: { fits: isP256, what: "an EC key on P-256" },
};

function isRsa(key: KeyObject): boolean {
  return key.asymmetricKeyType === "rsa" && (key.asymmetricKeyDetails?.modulusLength ?? 0) >= 2048;
}

function isP256(key: KeyObject): boolean {
  return key.asymmetricKeyType === "ec" && key.asymmetricKeyDetails?.namedCurve === "prime256v1";
}

export interface Signer {
  publicKey: KeyObject;
  /** SHA-256 of the certificate in DER, hex. */
  certificateHash: string;
  /** SHA-256 of the public key's SubjectPublicKeyInfo in DER, hex. */
  keyId: string;
  /** SHA-256 with ECDSA (DER) or RSA (PKCS#1 v1.5). */
  sign(data: Buffer): Promise<Buffer>;
  /** PKCS#7 SignedData in DER over detached data, without attributes and certificates. */
  signDetached(data: Buffer): Promise<Buffer>;
}

/** Reads a signer's certificate. @throws PropertyError with the path of the field. */
export async function readCertificate(role: SignerRole, reference: SigningKey): Promise<X509Certificate> {
  const property = `${role}.certificateFile`;
  let certificate: X509Certificate;
  try {
    certificate = new X509Certificate(await readFile(reference.certificateFile));
  } catch (error) {
    throw wrong(
      property,
      `${reference.certificateFile} is no certificate that can be read: ${(error as Error).message}`,
    );
  }
  if (!kinds[role].fits(certificate.publicKey)) {
    throw wrong(property, `${reference.certificateFile}: its key is not ${kinds[role].what}`);
  }
  return certificate;
}

/** SHA-256 of a certificate in DER, hex. */
export function certificateHash(certificate: X509Certificate): string {
  return createHash("sha256").update(certificate.raw).digest("hex");
}

/**
 * Opens a signer. That its key signs for its certificate is proved before anything is made.
 *
 * @throws PropertyError with the path of the field that is wrong.
 */
export async function openSigner(
  role: SignerRole,
  reference: SigningKey,
  tools: SealTools,
  signal?: AbortSignal,
): Promise<Signer> {
  const certificate = await readCertificate(role, reference);
  const { publicKey } = certificate;
  const openssl = openssls(role, reference, tools);
  const options = signal === undefined ? {} : { signal };
  const sign = (data: Buffer) =>
    inPrivateFolder(data, async (input, output) => {
      // The same data gives the same signature where openssl can (version 3.2 and newer), as RSA's does by nature.
      const repeatable = isP256(publicKey) && reference.keyFile !== undefined ? ["-sigopt", "nonce-type:1"] : [];
      await openssl(["dgst", "-sha256", ...repeatable], "-sign", ["-out", output, input], options);
    });
  await prove(role, reference, certificate, sign);
  return {
    publicKey,
    certificateHash: certificateHash(certificate),
    keyId: keyId(publicKey),
    sign,
    signDetached: (data) =>
      inPrivateFolder(data, async (input, output) => {
        const form = ["smime", "-sign", "-nocerts", "-noattr", "-binary", "-md", "sha256", "-outform", "der"];
        const files = ["-signer", reference.certificateFile, "-in", input, "-out", output];
        await openssl(form, "-inkey", files, options);
      }),
  };
}

type Openssl = (before: string[], keyOption: string, after: string[], options: CommandOptions) => Promise<unknown>;

/** How openssl is called with the key: the option that names it stands between what is before and after. */
function openssls(role: SignerRole, { keyFile, pkcs11Uri }: SigningKey, tools: SealTools): Openssl {
  if (keyFile !== undefined) {
    return (before, keyOption, after, options) =>
      // The pinned one; the machine's settings, which may name modules of its own version, are not for it.
      tools.run("openssl", [...before, keyOption, keyFile, ...after], {
        ...options,
        environment: { OPENSSL_CONF: "/dev/null" },
      });
  }
  if (pkcs11Uri === undefined) throw wrong(role, "give one of `keyFile` and `pkcs11Uri`");
  const { uri, modulePath } = parsePkcs11Uri(pkcs11Uri);
  const environment = {
    ...moduleSettings(),
    ...(modulePath === undefined ? {} : { PKCS11_MODULE_PATH: modulePath }),
  };
  return (before, keyOption, after, options) =>
    // The machine's own: the modules of key stores are made for it.
    run("openssl", [...before, "-engine", "pkcs11", "-keyform", "engine", keyOption, uri, ...after], {
      ...options,
      environment,
    });
}

/** Where PKCS#11 modules find their settings, e.g. SOFTHSM2_CONF: names of files, as every module has it. */
function moduleSettings(): Record<string, string> {
  return Object.fromEntries(
    Object.entries(process.env).filter((entry): entry is [string, string] => /^[A-Z0-9_]+_CONF$/.test(entry[0])),
  );
}

async function prove(
  role: SignerRole,
  reference: SigningKey,
  certificate: X509Certificate,
  sign: (data: Buffer) => Promise<Buffer>,
): Promise<void> {
  const { keyFile, certificateFile } = reference;
  if (keyFile !== undefined) {
    let fits: boolean;
    try {
      fits = certificate.checkPrivateKey(createPrivateKey(await readFile(keyFile)));
    } catch (error) {
      throw wrong(`${role}.keyFile`, `${keyFile} is no private key that can be read: ${(error as Error).message}`);
    }
    if (!fits) throw wrong(`${role}.keyFile`, `${keyFile} is not the key of ${certificateFile}`);
    return;
  }
  const challenge = Buffer.from("palisade: does this key belong to its certificate?");
  let signature: Buffer;
  try {
    signature = await sign(challenge);
  } catch (error) {
    throw wrong(`${role}.pkcs11Uri`, `the key does not sign: ${(error as Error).message}`);
  }
  if (!verify("sha256", challenge, certificate.publicKey, signature)) {
    throw wrong(`${role}.pkcs11Uri`, `the key is not the one of ${certificateFile}`);
  }
}

/** openssl reads and writes files; they lie in a folder of mode 0700, and hold nothing secret. */
async function inPrivateFolder(data: Buffer, work: (input: string, output: string) => Promise<void>): Promise<Buffer> {
  const folder = await mkdtemp(join(tmpdir(), "palisade-sign-"));
  try {
    const [input, output] = [join(folder, "data"), join(folder, "signature")];
    await writeFile(input, data, { mode: 0o600 });
    await work(input, output);
    return await readFile(output);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function wrong(property: string, reason: string): PropertyError {
  return new PropertyError([{ property, reason }]);
}
