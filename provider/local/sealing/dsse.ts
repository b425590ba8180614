/**
 * Signed envelopes: https://github.com/secure-systems-lab/dsse/blob/master/protocol.md. The agent's twin is
 * hosts/seal/dsse.go; the tests of both read hosts/api/testdata/seal-envelopes.json.
 */
import { createHash, verify, type KeyObject } from "node:crypto";
import * as v from "valibot";
import { fitting, object, parseJson } from "../../../shared/decode.js";
import type { Signer } from "./signer.js";

export interface Envelope {
  payloadType: string;
  /** base64 */
  payload: string;
  signatures: { keyid: string; sig: string }[];
}

/** The signed bytes: type and payload, each with its length, so that neither can be taken for the other. */
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
 * @throws when it is no envelope, is of another type, or has no signature of the key.
 */
export function openEnvelope(bytes: Buffer, payloadType: string, publicKey: KeyObject): Buffer {
  const envelope = parseEnvelope(bytes);
  if (envelope.payloadType !== payloadType) {
    throw new Error(`the envelope holds ${JSON.stringify(envelope.payloadType)}, not ${payloadType}`);
  }
  const payload = decodeBase64(envelope.payload);
  if (payload === undefined) throw new Error("the envelope's payload is no base64");
  const signed = preAuthenticationEncoding(payloadType, payload);
  const isTheKeys = ({ sig }: { sig: string }) => {
    const signature = decodeBase64(sig);
    return signature !== undefined && verify("sha256", signed, publicKey, signature);
  };
  if (!envelope.signatures.some(isTheKeys)) {
    throw new Error(`no signature of the envelope is that of the key ${keyId(publicKey)}`);
  }
  return payload;
}

const envelopeSchema = object({ payloadType: v.string(), payload: v.string(), signatures: v.array(v.unknown()) });
const signatureSchema = object({ sig: v.string() });

/**
 * The well-formed signatures of an envelope; a malformed one hides no other. @throws when the bytes are no envelope.
 */
function parseEnvelope(bytes: Buffer): Pick<Envelope, "payloadType" | "payload"> & { signatures: { sig: string }[] } {
  const value = v.safeParse(envelopeSchema, parseJson(bytes, "the envelope"));
  const signatures = value.success ? fitting(signatureSchema, value.output.signatures) : [];
  if (!value.success || (value.output.signatures.length > 0 && signatures.length === 0)) {
    throw new Error("this is no DSSE envelope");
  }
  return { ...value.output, signatures };
}

/**
 * Reads the standard or the URL-safe alphabet, as DSSE allows; padded, without line ends or anything else in between
 * (RFC 4648, section 3).
 *
 * @returns undefined for any other text; Buffer.from would ignore mistakes.
 */
export function decodeBase64(text: string): Buffer | undefined {
  const encoding = /[-_]/.test(text) ? "base64url" : "base64";
  const content = Buffer.from(text, encoding);
  const encoded = content.toString(encoding);
  const padding = encoding === "base64url" ? "=".repeat((4 - (encoded.length % 4)) % 4) : "";
  return encoded + padding === text ? content : undefined;
}
