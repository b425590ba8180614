import type { Value } from "../resource.js";
import { parsePkcs11Uri } from "../sealing/pkcs11-uri.js";
import type { Rules } from "./rules.js";
import { isRecord } from "./schema.js";

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
    // Without the value, which may hold a PIN.
    rules.fail(`${name}.pkcs11Uri`, (error as Error).message);
  }
}
