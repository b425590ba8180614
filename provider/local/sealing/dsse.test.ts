import { createPublicKey, generateKeyPairSync, sign, verify, type KeyObject } from "node:crypto";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { keyId, openEnvelope, preAuthenticationEncoding, signEnvelope } from "./dsse.js";
import type { Signer } from "./signer.js";

const type = "http://example.com/HelloWorld";

/** Signs as openssl does, with a key in memory. */
function signerOf(privateKey: KeyObject): Signer {
  const publicKey = createPublicKey(privateKey);
  return {
    publicKey,
    certificateHash: "",
    keyId: keyId(publicKey),
    sign: async (data) => sign("sha256", data, privateKey),
    signDetached: async () => Buffer.alloc(0),
  };
}
const ec = signerOf(generateKeyPairSync("ec", { namedCurve: "P-256" }).privateKey);
const rsa = signerOf(generateKeyPairSync("rsa", { modulusLength: 2048 }).privateKey);

describe("the encoding that is signed", () => {
  it("is the specification's", () => {
    expect(preAuthenticationEncoding(type, Buffer.from("hello world")).toString()).toBe(
      "DSSEv1 29 http://example.com/HelloWorld 11 hello world",
    );
    expect(preAuthenticationEncoding("é", Buffer.alloc(0)).toString()).toBe("DSSEv1 2 é 0 ");
  });

  it("fits the signature of the specification's example", () => {
    const coordinate = (decimal: string) =>
      Buffer.from(BigInt(decimal).toString(16).padStart(64, "0"), "hex").toString("base64url");
    const key = createPublicKey({
      format: "jwk",
      key: {
        kty: "EC",
        crv: "P-256",
        x: coordinate("46950820868899156662930047687818585632848591499744589407958293238635476079160"),
        y: coordinate("5640078356564379163099075877009565129882514886557779369047442380624545832820"),
      },
    });
    const signature = Buffer.from(
      "A3JqsQGtVsJ2O2xqrI5IcnXip5GToJ3F+FnZ+O88SjtR6rDAajabZKciJTfUiHqJPcIAriEGAHTVeCUjW2JIZA==",
      "base64",
    );
    const fits = (text: string) =>
      verify(
        "sha256",
        preAuthenticationEncoding(type, Buffer.from(text)),
        { key, dsaEncoding: "ieee-p1363" },
        signature,
      );
    expect(fits("hello world")).toBe(true);
    expect(fits("hello World")).toBe(false);
  });

  it("is different for different types and payloads", () => {
    const text = fc.string();
    fc.assert(
      fc.property(text, text, text, text, (type1, payload1, type2, payload2) => {
        const same = preAuthenticationEncoding(type1, Buffer.from(payload1)).equals(
          preAuthenticationEncoding(type2, Buffer.from(payload2)),
        );
        expect(same).toBe(type1 === type2 && payload1 === payload2);
      }),
    );
  });
});

describe("an envelope", () => {
  it.each([
    ["EC", ec],
    ["RSA", rsa],
  ])("is opened by its %s key, whatever the payload", async (_name, signer) => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array(), async (payload) => {
        const bytes = Buffer.from(JSON.stringify(await signEnvelope(type, Buffer.from(payload), signer)));
        expect(openEnvelope(bytes, type, signer.publicKey)).toEqual(Buffer.from(payload));
      }),
      { numRuns: 20 },
    );
  });

  it("is refused for another key, type or payload, and when it is none", async () => {
    const envelope = await signEnvelope(type, Buffer.from("hello"), ec);
    const open = (changed: object, key = ec.publicKey, as = type) =>
      openEnvelope(Buffer.from(JSON.stringify({ ...envelope, ...changed })), as, key);
    expect(open({}).toString()).toBe("hello");
    expect(() => open({}, rsa.publicKey)).toThrow(/no signature of the envelope is that of the key [0-9a-f]{64}/);
    expect(() => open({}, ec.publicKey, "other")).toThrow(/holds "http:.*HelloWorld", not other/);
    expect(() => open({ payloadType: "other" }, ec.publicKey, "other")).toThrow(/no signature/);
    expect(() => open({ payload: Buffer.from("hallo").toString("base64") })).toThrow(/no signature/);
    expect(() => open({ signatures: [] })).toThrow(/no signature/);
    // The id of the key is a hint that is not signed.
    expect(open({ signatures: [{ sig: envelope.signatures[0]!.sig }] }).toString()).toBe("hello");
    for (const none of [
      { payload: 1 },
      { signatures: undefined },
      { signatures: [null] },
      { payloadType: undefined },
    ]) {
      expect(() => open(none)).toThrow(/no DSSE envelope/);
    }
  });
});
