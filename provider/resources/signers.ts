import { createPublicKey, type KeyObject } from "node:crypto";
import type { Value } from "../protocol/resource.js";
import { parsePkcs11Uri } from "../../shared/pkcs11-uri.js";
import type { Rules } from "./rules.js";
import { isRecord } from "../schema/schema.js";

/** Rules for a signing key that is given by reference. */
export function checkSigner(rules: Rules, name: string, signer: Value | undefined): void {
  if (!isRecord(signer)) return;
  const { keyFile, pkcs11Uri } = signer;
  if ((keyFile === undefined) === (pkcs11Uri === undefined)) {
    rules.fail(name, "give exactly one of `keyFile` (a PEM file) and `pkcs11Uri` (a key behind PKCS#11)");
  }
  if (typeof pkcs11Uri !== "string") return;
  try {
    parsePkcs11Uri(pkcs11Uri);
  } catch (error) {
    // The value is not shown, as it may hold a PIN.
    rules.fail(`${name}.pkcs11Uri`, (error as Error).message);
  }
}

/** Why a text is no public key that can sign images. The text is not repeated: it may be a private key by mistake. */
export function publicKeyProblem(pem: string): string | undefined {
  const what = "is not one PEM public key, as cosign writes it to cosign.pub";
  if (!/^-----BEGIN PUBLIC KEY-----[^-]+-----END PUBLIC KEY-----$/.test(pem.trim())) return what;
  let key: KeyObject;
  try {
    key = createPublicKey(pem);
  } catch {
    return what;
  }
  if (key.asymmetricKeyType === "ec" && key.asymmetricKeyDetails?.namedCurve === "prime256v1") return undefined;
  return "is not an ECDSA P-256 key, the only kind that cosign's key pairs are";
}
