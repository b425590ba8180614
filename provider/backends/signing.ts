/** Keys by reference. */

/** A key pair by reference: the files never enter the state. */
export interface KeyPairFiles {
  certificateFile: string;
  keyFile: string;
}

/** A key that signs, by reference: exactly one of `keyFile` and `pkcs11Uri`. Nothing secret enters the state. */
export interface SigningKey {
  /** PEM. */
  certificateFile: string;
  /** PEM, PKCS#8, not encrypted. */
  keyFile?: string;
  /** RFC 7512; the PIN is in the file that `pin-source` names. */
  pkcs11Uri?: string;
}
