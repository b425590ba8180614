/** Certificates for tests, made by OpenSSL, an implementation other than the one under test. */
import { join } from "node:path";
import type { KeyPairFiles } from "../../backends/index.js";
import { run } from "../../system/command.js";
import { hostName, publicKeyDigest } from "./host-certificate.js";
import type { IdentityRecord, RecordedIdentity } from "./host-identity.js";
import { ecdsa, webcrypto, x509 } from "./x509.js";

const keyOptions = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];

/** Makes a CA in a folder. */
export async function makeAuthority(folder: string, name = "ca"): Promise<KeyPairFiles> {
  const files = { certificateFile: join(folder, `${name}.crt`), keyFile: join(folder, `${name}.key`) };
  await run("openssl", [
    ...["req", "-x509", ...keyOptions, "-days", "2", "-subj", `/CN=test ${name}`],
    ...["-addext", "keyUsage=critical,keyCertSign,cRLSign"],
    ...["-keyout", files.keyFile, "-out", files.certificateFile],
  ]);
  return files;
}

/** Makes a client's certificate signed by a CA of `makeAuthority`. */
export async function makeClient(folder: string, authority: KeyPairFiles): Promise<KeyPairFiles> {
  const files = { certificateFile: join(folder, "client.crt"), keyFile: join(folder, "client.key") };
  const request = join(folder, "client.csr");
  await run("openssl", [
    "req",
    "-new",
    ...keyOptions,
    "-subj",
    "/CN=operator",
    "-keyout",
    files.keyFile,
    "-out",
    request,
  ]);
  await run("openssl", [
    ...["x509", "-req", "-in", request, "-days", "2", "-out", files.certificateFile],
    ...["-CA", authority.certificateFile, "-CAkey", authority.keyFile, "-CAcreateserial"],
  ]);
  return files;
}

export interface MemoryRecord extends IdentityRecord {
  recorded: RecordedIdentity | undefined;
}

/** A record in memory, with the other places that ids belong to. */
export function memoryRecord(recorded?: RecordedIdentity, owners: Record<string, string> = {}): MemoryRecord {
  const record: MemoryRecord = {
    place: "state disk own",
    recorded,
    locked: (work) => work(),
    read: async () => record.recorded,
    otherOwner: async (hostId) => owners[hostId],
    write: async (identity) => void (record.recorded = identity),
  };
  return record;
}

/** A host's request for a certificate, with its key. */
export async function makeRequest(hostId: string, names = [hostName(hostId)]) {
  const keys = await webcrypto.subtle.generateKey(ecdsa, true, ["sign", "verify"]);
  const request = await x509.Pkcs10CertificateRequestGenerator.create({
    name: `CN=${hostId}`,
    keys,
    signingAlgorithm: ecdsa,
    extensions: [new x509.SubjectAlternativeNameExtension(names.map((value) => ({ type: "dns" as const, value })))],
  });
  return {
    keys,
    keyDigest: publicKeyDigest(new Uint8Array(request.publicKey.rawData)),
    pem: request.toString("pem"),
    /** The same with the last byte of the signature changed. */
    tampered: () => {
      const der = Buffer.from(request.rawData);
      der[der.length - 1]! ^= 1;
      return x509.PemConverter.encode(der, "CERTIFICATE REQUEST");
    },
  };
}
