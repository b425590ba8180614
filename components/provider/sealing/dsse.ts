/** Signed envelopes: https://github.com/secure-systems-lab/dsse/blob/master/protocol.md */
import { createHash, verify, type KeyObject } from "node:crypto";
import type { Signer } from "./signer.js";

export interface Envelope {
  payloadType: string;
  /** base64 */
  payload: string;
  signatures: { keyid: string; sig: string }[];
}

/** What is signed: type and payload, each with its length, so that neither can be taken for the other. */
export function preAuthenticationEncoding(payloadType: string, payload: Buffer): Buffer {
  const head = `DSSEv1 ${Buffer.byteLength(payloadType)} ${payloadType} ${payload.length} `;
  return Buffer.concat([Buffer.from(head), payload]);
}

/** SHA-256 of a public key's SubjectPublicKeyInfo in DER, hex. */
export function keyId(publicKey: KeyObject): string {
  return createHash("sha256")
    .update(publicKey.export({ type: "spki", format: "der" }))
    .digest("hex");
}

export async function signEnvelope(payloadType: string, payload: Buffer, signer: Signer): Promise<Envelope> {
  const sig = (await signer.sign(preAuthenticationEncoding(payloadType, payload))).toString("base64");
  return { payloadType, payload: payload.toString("base64"), signatures: [{ keyid: signer.keyId, sig }] };
}

/**
 * The payload of an envelope that a key has signed. The key id only helps to find the key; the signature decides.
 *
 * @throws when it is no envelope, is of another type, or no signature is the key's.
 */
export function openEnvelope(bytes: Buffer, payloadType: string, publicKey: KeyObject): Buffer {
  const envelope = parseEnvelope(bytes);
  if (envelope.payloadType !== payloadType) {
    throw new Error(`the envelope holds ${JSON.stringify(envelope.payloadType)}, not ${payloadType}`);
  }
  const payload = Buffer.from(envelope.payload, "base64");
  const signed = preAuthenticationEncoding(payloadType, payload);
  if (!envelope.signatures.some(({ sig }) => verify("sha256", signed, publicKey, Buffer.from(sig, "base64")))) {
    throw new Error(`no signature of the envelope is that of the key ${keyId(publicKey)}`);
  }
  return payload;
}

/** @throws when the bytes are no envelope. */
export function parseEnvelope(bytes: Buffer): Envelope {
  const value = JSON.parse(bytes.toString()) as Partial<Envelope> | null;
  const isString = (one: unknown) => typeof one === "string";
  if (
    !isString(value?.payloadType) ||
    !isString(value.payload) ||
    !Array.isArray(value.signatures) ||
    !value.signatures.every((one: { sig?: unknown } | null) => isString(one?.sig))
  ) {
    throw new Error("this is no DSSE envelope");
  }
  return value as Envelope;
}
