/**
 * The firmware's key variables in the form that it accepts from a running system in setup mode: time-based
 * authenticated variables (UEFI 2.10, 8.2.6 and 32.4.1). `hosts/image/scripts/firmware.sh` puts the same keys into a
 * virtual machine's firmware. An image's initrd halts where the firmware has other ones.
 */
import { X509Certificate } from "node:crypto";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { keyPair } from "../../../shared/directories.js";
import { run } from "../../system/command.js";

export interface AuthenticatedVariable {
  name: "db" | "KEK" | "PK";
  /** Vendor GUID. */
  guid: string;
  /** The bytes that are written after the attributes. */
  data: Buffer;
  /** Where in `data` the signature lists begin, which are the content of the variable afterwards. */
  contentOffset: number;
}

/** Non-volatile, boot and runtime access, time-based authenticated write access. */
export const attributes = 0x27;

const global = "8be4df61-93ca-11d2-aa0d-00e098032b8c";
const imageSecurity = "d719b2cb-3d3a-4596-a3bc-dad00e67656f";
const x509Type = "a5c059a1-94e4-4aa7-87b5-ab155c2bf072";
const pkcs7Type = "4aafd29d-68df-49ee-8aa9-347d375665a7";
/** Names our keys' entries; firmware.sh has the same. */
const owner = "6c1a9a3e-8f5e-4d0b-9a55-2d6c1f0e7b43";

/**
 * In the order in which they are written: the platform key ends setup mode. `hosts/image/firmware-certificates` lists
 * the same certificates.
 */
const variables = [
  {
    name: "db",
    guid: imageSecurity,
    // Signers of root hashes, policies and layers too: the distribution's kernel looks them up in the platform keyring.
    certificates: ["secure-boot/db", "image/root-hash", "image/ipe-policy", "layers/layer"],
    signer: "secure-boot/kek",
  },
  { name: "KEK", guid: global, certificates: ["secure-boot/kek"], signer: "secure-boot/pk" },
  { name: "PK", guid: global, certificates: ["secure-boot/pk"], signer: "secure-boot/pk" },
] as const;

/** A GUID as it is stored: the first three fields are little-endian. */
function guid(text: string): Buffer {
  const bytes = Buffer.from(text.replaceAll("-", ""), "hex");
  bytes.subarray(0, 4).reverse();
  bytes.subarray(4, 6).reverse();
  bytes.subarray(6, 8).reverse();
  return bytes;
}

function uint32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

/** EFI_SIGNATURE_LIST with one certificate. */
export function signatureList(certificate: Buffer): Buffer {
  const entry = Buffer.concat([guid(owner), certificate]);
  return Buffer.concat([guid(x509Type), uint32(28 + entry.length), uint32(0), uint32(entry.length), entry]);
}

/** EFI_TIME of 1 January 2026, the same for all, so a variable that exists already is never changed. */
const time = Buffer.alloc(16);
time.writeUInt16LE(2026);
time.writeUInt8(1, 2);
time.writeUInt8(1, 3);

/**
 * PKCS#7 SignedData with the signer's certificate, without attributes; not wrapped in a ContentInfo, as firmware in the
 * field expects it.
 */
async function sign(certificateFile: string, keyFile: string, data: Buffer): Promise<Buffer> {
  const folder = await mkdtemp(join(tmpdir(), "palisade-firmware-"));
  try {
    const [input, output] = [join(folder, "data"), join(folder, "signature")];
    await writeFile(input, data);
    const form = ["-sign", "-noattr", "-binary", "-md", "sha256", "-outform", "der"];
    const files = ["-signer", certificateFile, "-inkey", keyFile, "-in", input, "-out", output];
    await run("openssl", ["smime", ...form, ...files], { environment: { OPENSSL_CONF: "/dev/null" } });
    const wrapped = await readFile(output);
    // SEQUENCE, OID signedData, [0]: each length takes two bytes behind its own, as RSA signatures are that long.
    return wrapped.subarray(19);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/**
 * The three variables for the keys of a folder made by `palisade keys init`.
 * @throws Error for a certificate that cannot be read
 */
export async function authenticatedVariables(keysDirectory: string): Promise<AuthenticatedVariable[]> {
  return Promise.all(
    variables.map(async ({ name, guid: vendor, certificates, signer }) => {
      const lists = await Promise.all(
        certificates.map(async (certificate) =>
          signatureList(new X509Certificate(await readFile(keyPair(keysDirectory, certificate).certificateFile)).raw),
        ),
      );
      const content = Buffer.concat(lists);
      const signed = Buffer.concat([Buffer.from(name, "utf16le"), guid(vendor), uint32(attributes), time, content]);
      const { certificateFile, keyFile } = keyPair(keysDirectory, signer);
      const signature = await sign(certificateFile, keyFile, signed);
      // WIN_CERTIFICATE_UEFI_GUID: length, revision 2.0, type 0x0EF1.
      const header = Buffer.concat([uint32(24 + signature.length), uint32(0x0ef10200), guid(pkcs7Type)]);
      const data = Buffer.concat([time, header, signature, content]);
      return { name, guid: vendor, data, contentOffset: data.length - content.length };
    }),
  );
}
