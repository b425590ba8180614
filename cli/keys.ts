/**
 * The operator's keys. They are made once, outside every clone and every stack's state, and outlive both:
 *
 *     secure-boot/{pk,kek,db}.{key,crt}        firmware: pk and kek own it, db signs boot images
 *     image/{root-hash,ipe-policy}.{key,crt}   what the kernel checks: the root file system and the integrity policy
 *     layers/layer.{key,crt}                   what the kernel checks: root hashes of container images' layers
 *     layers/seal.{key,crt}                    what hosts check: which layers an image has
 *     images/signer.{key,crt,pub}              signatures of images in cosign's format; a policy names the public key
 *     hosts/{ca,client}.{key,crt}              hosts' identities, and the operator's client certificate
 *     hmac.key                                 keyed hashes of write-only values
 */
import { KeyObject, randomBytes, X509Certificate } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { defaultKeysDirectory, hostKeyFiles, operatorHome } from "../shared/directories.js";
import { readAuthority } from "../provider/local/certificates/authority.js";
import {
  clientCertificateDays,
  isClientRenewalDue,
  readClientCertificate,
  signClientCertificate,
} from "../provider/local/certificates/client-certificate.js";
import { writeFileAtomic } from "../provider/system/atomic-file.js";
import { generateKey, type KeyKind, type KeyPair, makeCertificate, readKey } from "./certificates.js";
import { ensurePrivateDirectory, ensurePrivateFile, ensurePublicFile } from "./private-files.js";

const year = 365;

interface KeySpec {
  /** Path in the folder, without `.key` and `.crt`. */
  path: string;
  kind: KeyKind;
  role: "authority" | "signer";
  commonName: string;
  days: number;
}

/** The CA of hosts and their clients. */
export const authorityCertificate = { role: "authority", commonName: "Palisade hosts", days: 10 * year } as const;

/** Self-signed pairs. Firmware and kernel ignore the end of validity; other programs may not. */
const selfSigned: KeySpec[] = [
  {
    path: "secure-boot/pk",
    kind: "rsa-2048",
    role: "authority",
    commonName: "Palisade platform key",
    days: 20 * year,
  },
  {
    path: "secure-boot/kek",
    kind: "rsa-2048",
    role: "authority",
    commonName: "Palisade key exchange key",
    days: 20 * year,
  },
  { path: "secure-boot/db", kind: "rsa-2048", role: "signer", commonName: "Palisade boot images", days: 20 * year },
  { path: "image/root-hash", kind: "rsa-2048", role: "signer", commonName: "Palisade root hashes", days: 20 * year },
  { path: "image/ipe-policy", kind: "rsa-2048", role: "signer", commonName: "Palisade IPE policies", days: 20 * year },
  { path: "layers/layer", kind: "rsa-2048", role: "signer", commonName: "Palisade layers", days: 20 * year },
  { path: "layers/seal", kind: "ec-p256", role: "signer", commonName: "Palisade seals", days: 20 * year },
  { path: "images/signer", kind: "ec-p256", role: "signer", commonName: "Palisade container images", days: 20 * year },
  { path: "hosts/ca", kind: "ec-p256", ...authorityCertificate },
];

/** What `keys init` did. */
export interface KeysReport {
  directory: string;
  /**
   * Paths of the files that were made by this call, relative to the folder's parent. Empty when nothing was missing.
   */
  made: string[];
}

/**
 * Makes those of the operator's keys that are missing; never overwrites a key. The client's certificate is renewed with
 * the same key when less than a third of its life of 7 days is left.
 *
 * @param directory where; default `keys` in the operator's home, which then also gets its `passphrase` and `backend/`.
 * @throws Error when a file is open to others, or when a certificate is there without its key.
 */
export async function initKeys(directory?: string): Promise<KeysReport> {
  const keysDirectory = path.resolve(directory ?? defaultKeysDirectory());
  const made: string[] = [];
  const relative = (file: string) => path.relative(path.dirname(keysDirectory), file);
  const noted = (file: string, make: () => string | Promise<string>) => () => {
    made.push(relative(file));
    return make();
  };

  if (directory === undefined) {
    const home = operatorHome();
    ensurePrivateDirectory(home);
    ensurePrivateDirectory(path.join(home, "backend"));
    const passphrase = path.join(home, "passphrase");
    refuseLostPassphrase(home, passphrase);
    await ensurePrivateFile(
      passphrase,
      noted(passphrase, () => `${randomBytes(32).toString("base64url")}\n`),
    );
  }
  for (const folder of ["", "secure-boot", "image", "layers", "images", "hosts"]) {
    ensurePrivateDirectory(path.join(keysDirectory, folder));
  }

  const ensureKey = async (stem: string, kind: KeyKind): Promise<KeyPair> => {
    const keyFile = path.join(keysDirectory, `${stem}.key`);
    const certificateFile = path.join(keysDirectory, `${stem}.crt`);
    if (!existsSync(keyFile) && existsSync(certificateFile)) {
      throw new Error(
        `${keyFile}: missing, but its certificate ${certificateFile} is there. Restore the key from a backup; ` +
          `if it is lost, move ${keysDirectory} away and make new keys (hosts and images of the old ones are then foreign).`,
      );
    }
    return readKey(
      kind,
      await ensurePrivateFile(
        keyFile,
        noted(keyFile, () => generateKey(kind)),
      ),
    );
  };

  for (const { path: stem, kind, role, commonName, days } of selfSigned) {
    const subject = await ensureKey(stem, kind);
    const certificateFile = path.join(keysDirectory, `${stem}.crt`);
    await ensurePublicFile(
      certificateFile,
      noted(certificateFile, () => makeCertificate({ commonName, role, days, subject })),
    );
  }

  const imageSigner = path.join(keysDirectory, "images/signer.crt");
  const publicFile = path.join(keysDirectory, "images/signer.pub");
  await ensurePublicFile(
    publicFile,
    noted(publicFile, () => publicKeyOf(readFileSync(imageSigner, "utf8"))),
  );

  const { certificateAuthority, clientIdentity } = hostKeyFiles;
  const authority = await readAuthority({
    certificateFile: path.join(keysDirectory, certificateAuthority.certificateFile),
    keyFile: path.join(keysDirectory, certificateAuthority.keyFile),
  });
  const { keys: clientKeys } = await ensureKey("hosts/client", "ec-p256");
  const clientFile = path.join(keysDirectory, clientIdentity.certificateFile);
  const clientKey = KeyObject.from(clientKeys.publicKey);
  const makeClient = () =>
    signClientCertificate(authority, clientKey, { role: "operator", days: clientCertificateDays });
  const client = await ensurePublicFile(clientFile, noted(clientFile, makeClient));
  const present = readClientCertificate(client);
  if (authority.revoked.includes(present.serialNumber)) {
    const key = path.join(keysDirectory, clientIdentity.keyFile);
    throw new Error(
      `${clientFile}: is revoked, so its key gets no other one. Move it and ${key} away, and repeat this`,
    );
  }
  if (isClientRenewalDue(present)) {
    made.push(relative(clientFile));
    await writeFileAtomic(clientFile, await makeClient());
  }

  const hmac = path.join(keysDirectory, "hmac.key");
  await ensurePrivateFile(
    hmac,
    noted(hmac, () => `${randomBytes(32).toString("hex")}\n`),
  );
  return { directory: keysDirectory, made };
}

/** The public key of a certificate, PEM (SubjectPublicKeyInfo), as cosign and image policies take it. */
function publicKeyOf(certificate: string): string {
  return new X509Certificate(certificate).publicKey.export({ type: "spki", format: "pem" }) as string;
}

/** A new passphrase would not open the secrets of the stacks that exist. */
function refuseLostPassphrase(home: string, passphrase: string): void {
  const stacks = path.join(home, "backend/.pulumi/stacks");
  if (existsSync(passphrase) || !existsSync(stacks) || readdirSync(stacks).length === 0) return;
  throw new Error(
    `${passphrase}: missing, but there are stacks in ${stacks} whose secrets it protects. ` +
      "Restore the file from a backup; without it their state cannot be read.",
  );
}
