import { execFileSync } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { packageRoot } from "../../../shared/directories.js";
import { initKeys } from "../../../cli/keys.js";
import { authenticatedVariables, type AuthenticatedVariable } from "./authenticated-variables.js";

const folder = mkdtempSync(path.join(tmpdir(), "palisade-firmware-"));
const keys = path.join(folder, "keys");
let variables: AuthenticatedVariable[];

beforeAll(async () => {
  await initKeys(keys);
  variables = await authenticatedVariables(keys);
});
afterAll(() => rmSync(folder, { recursive: true }));

const certificate = (name: string): Buffer => new X509Certificate(readFileSync(path.join(keys, `${name}.crt`))).raw;

/** DER of a constructed value with a length of two bytes. */
const der = (tag: number, content: Buffer): Buffer =>
  Buffer.concat([Buffer.from([tag, 0x82, content.length >> 8, content.length & 255]), content]);

/** The signature as openssl reads it, and what it is over (UEFI 2.10, 8.2.6). */
function parts({ name, guid, data, contentOffset }: AuthenticatedVariable) {
  const [time, content] = [data.subarray(0, 16), data.subarray(contentOffset)];
  expect(data.readUInt32LE(16)).toBe(contentOffset - 16);
  const oid = Buffer.from("06092a864886f70d010702", "hex");
  const signature = der(0x30, Buffer.concat([oid, der(0xa0, data.subarray(40, contentOffset))]));
  const [a, b, c, ...rest] = guid.split("-").map((text) => Buffer.from(text, "hex"));
  const vendor = Buffer.concat([a!.reverse(), b!.reverse(), c!.reverse(), ...rest]);
  const signed = [Buffer.from(name, "utf16le"), vendor, Buffer.from([0x27, 0, 0, 0]), time, content];
  return { signature, signed: Buffer.concat(signed) };
}

function isSigned(signature: Buffer, signed: Buffer, signer: string): boolean {
  const [file, content] = [path.join(folder, "signature"), path.join(folder, "content")];
  writeFileSync(file, signature);
  writeFileSync(content, signed);
  const crt = path.join(keys, `${signer}.crt`);
  const form = ["smime", "-verify", "-binary", "-inform", "der", "-in", file, "-content", content];
  try {
    execFileSync("openssl", [...form, "-certfile", crt, "-nointern", "-noverify", "-out", "/dev/null"], {
      stdio: "pipe",
    });
    return true;
  } catch {
    return false;
  }
}

it("puts the platform key last, as it ends setup mode", () => {
  expect(variables.map(({ name }) => name)).toEqual(["db", "KEK", "PK"]);
});

it("has exactly the certificates that an image's initrd requires", () => {
  const lines = readFileSync(path.join(packageRoot(), "hosts/image/firmware-certificates"), "utf8").trim().split("\n");
  const required = lines.map((line) => line.split(" ") as [string, string]);
  expect(new Set(required.map(([name]) => name))).toEqual(new Set(variables.map(({ name }) => name)));
  for (const { name, data, contentOffset } of variables) {
    const content = data.subarray(contentOffset);
    const certificates = required.filter(([variable]) => variable === name).map(([, file]) => certificate(file));
    for (const each of certificates) expect(content.includes(each)).toBe(true);
    // A list and an owner's GUID around each, and nothing else.
    expect(content.length).toBe(certificates.reduce((size, { length }) => size + 28 + 16 + length, 0));
  }
});

describe.each([
  [0, ["secure-boot/db", "image/root-hash", "image/ipe-policy", "layers/layer"], "secure-boot/kek"],
  [1, ["secure-boot/kek"], "secure-boot/pk"],
  [2, ["secure-boot/pk"], "secure-boot/pk"],
] as const)("variable %i", (index, certificates, signer) => {
  it("holds the certificates that firmware.sh puts there", () => {
    const { data, contentOffset } = variables[index]!;
    let at = contentOffset;
    for (const name of certificates) {
      const wanted = certificate(name);
      expect(data.readUInt32LE(at + 16)).toBe(28 + 16 + wanted.length);
      expect(data.subarray(at + 44, at + 44 + wanted.length).equals(wanted)).toBe(true);
      at += data.readUInt32LE(at + 16);
    }
    expect(at).toBe(data.length);
  });

  it("is signed by the key above it, over name, vendor, attributes, time and content", () => {
    const { signature, signed } = parts(variables[index]!);
    expect(isSigned(signature, signed, signer)).toBe(true);
    expect(isSigned(signature, signed, "layers/layer")).toBe(false);
    signed[signed.length - 1]! ^= 1;
    expect(isSigned(signature, signed, signer)).toBe(false);
  });
});

it("is the same each time, so that nothing changes in a stack", async () => {
  expect(await authenticatedVariables(keys)).toEqual(variables);
});
