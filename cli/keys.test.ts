import { execFileSync } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  writeFileSync,
} from "node:fs";
import { createPrivateKey, createPublicKey, X509Certificate } from "node:crypto";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { readAuthority } from "../provider/local/certificates/authority.js";
import {
  isClientRenewalDue,
  readClientCertificate,
  signClientCertificate,
} from "../provider/local/certificates/client-certificate.js";
import { recordRevocations } from "../provider/local/certificates/revocations.js";
import { readKey } from "./certificates.js";
import { makeClient } from "./client-keys.js";
import { initKeys } from "./keys.js";

let folder: string;
beforeAll(() => {
  folder = mkdtempSync(path.join(tmpdir(), "palisade-keys-"));
});
afterAll(() => {
  vi.unstubAllEnvs();
  rmSync(folder, { recursive: true, force: true });
});

function tree(root: string, at = ""): [string, string][] {
  return readdirSync(path.join(root, at), { withFileTypes: true })
    .sort((a, b) => (a.name < b.name ? -1 : 1))
    .flatMap((entry): [string, string][] => {
      const name = path.join(at, entry.name);
      const mode = (statSync(path.join(root, name)).mode & 0o777).toString(8);
      return [[name, mode], ...(entry.isDirectory() ? tree(root, name) : [])];
    });
}

function contents(root: string): Record<string, string> {
  return Object.fromEntries(
    tree(root)
      .filter(([name]) => statSync(path.join(root, name)).isFile())
      .map(([name]) => [name, readFileSync(path.join(root, name), "utf8")]),
  );
}

/** Making RSA keys takes seconds, so tests of what happens to keys share a set. */
function copyOfKeys(name: string): string {
  const directory = path.join(folder, name);
  // Not cpSync: newer versions of Node.js give copied folders the mode of new ones.
  execFileSync("cp", ["-a", path.join(folder, "home/keys"), directory]);
  return directory;
}

describe("palisade keys init", () => {
  it("makes the operator's home, closed to others, once", async () => {
    const home = path.join(folder, "home");
    vi.stubEnv("PALISADE_HOME", home);
    const report = await initKeys();
    expect(tree(home)).toEqual([
      ["backend", "700"],
      ["keys", "700"],
      ["keys/hmac.key", "600"],
      ["keys/hosts", "700"],
      ...["ca.crt", "ca.key", "client.crt", "client.key"].map((name) => [`keys/hosts/${name}`, "600"]),
      ["keys/image", "700"],
      ...["ipe-policy", "root-hash"].flatMap((name) => [
        [`keys/image/${name}.crt`, "600"],
        [`keys/image/${name}.key`, "600"],
      ]),
      ["keys/images", "700"],
      ...["signer.crt", "signer.key", "signer.pub"].map((name) => [`keys/images/${name}`, "600"]),
      ["keys/layers", "700"],
      ...["layer.crt", "layer.key", "seal.crt", "seal.key"].map((name) => [`keys/layers/${name}`, "600"]),
      ["keys/secure-boot", "700"],
      ...["db", "kek", "pk"].flatMap((name) => [
        [`keys/secure-boot/${name}.crt`, "600"],
        [`keys/secure-boot/${name}.key`, "600"],
      ]),
      ["passphrase", "600"],
    ]);
    expect(report.made).toHaveLength(23);
    const before = contents(home);
    expect((await initKeys()).made).toEqual([]);
    expect(contents(home)).toEqual(before);
  });

  it("makes keys only in a folder that is named", async () => {
    const directory = path.join(folder, "named", "keys");
    await initKeys(directory);
    expect(readdirSync(path.dirname(directory))).toEqual(["keys"]);
  });

  it("makes pairs that fit, of the kinds that firmware, kernel and TLS take", () => {
    const directory = path.join(folder, "home/keys");
    const read = (name: string) => readFileSync(path.join(directory, name), "utf8");
    for (const name of [
      ...["secure-boot/pk", "secure-boot/kek", "secure-boot/db"],
      ...["image/root-hash", "image/ipe-policy", "layers/layer"],
    ]) {
      const certificate = new X509Certificate(read(`${name}.crt`));
      expect(certificate.publicKey.asymmetricKeyDetails).toMatchObject({ modulusLength: 2048, publicExponent: 65537n });
      expect(certificate.verify(certificate.publicKey)).toBe(true);
      expect(certificate.checkPrivateKey(createPrivateKey(read(`${name}.key`)))).toBe(true);
      expect(certificate.ca).toBe(name.endsWith("pk") || name.endsWith("kek"));
    }
    for (const name of ["layers/seal", "images/signer"]) {
      const certificate = new X509Certificate(read(`${name}.crt`));
      expect(certificate.publicKey.asymmetricKeyDetails).toMatchObject({ namedCurve: "prime256v1" });
      expect(certificate.checkPrivateKey(createPrivateKey(read(`${name}.key`)))).toBe(true);
    }
    const signer = new X509Certificate(read("images/signer.crt"));
    expect(createPublicKey(read("images/signer.pub")).equals(signer.publicKey)).toBe(true);
    const ca = new X509Certificate(read("hosts/ca.crt"));
    const client = new X509Certificate(read("hosts/client.crt"));
    expect(ca.ca).toBe(true);
    expect(client.checkIssued(ca) && client.verify(ca.publicKey)).toBe(true);
    expect(client.subject).toBe("CN=operator");
    expect(client.keyUsage).toEqual(["1.3.6.1.5.5.7.3.2"]);
    expect(Buffer.from(read("hmac.key").trim(), "hex")).toHaveLength(32);
  });

  it("makes keys that openssl signs policies and root hashes with", () => {
    const directory = path.join(folder, "home/keys/image");
    const data = path.join(folder, "data");
    writeFileSync(data, "root hash");
    const pair = ["-signer", `${directory}/root-hash.crt`, "-inkey", `${directory}/root-hash.key`];
    execFileSync("openssl", [
      "smime",
      "-sign",
      "-noattr",
      "-binary",
      "-in",
      data,
      ...pair,
      "-outform",
      "der",
      "-out",
      `${data}.p7s`,
    ]);
    const trusted = ["-CAfile", `${directory}/root-hash.crt`];
    execFileSync(
      "openssl",
      ["smime", "-verify", "-inform", "der", "-in", `${data}.p7s`, "-content", data, ...trusted],
      { stdio: "pipe" },
    );
  });

  it("makes one set when two run at once", async () => {
    const directory = path.join(folder, "twice");
    await Promise.all([initKeys(directory), initKeys(directory)]);
    const { keys } = await readKey("ec-p256", readFileSync(path.join(directory, "hosts/ca.key"), "utf8"));
    const ca = new X509Certificate(readFileSync(path.join(directory, "hosts/ca.crt")));
    const client = new X509Certificate(readFileSync(path.join(directory, "hosts/client.crt")));
    expect(client.verify(ca.publicKey)).toBe(true);
    expect(keys.publicKey).toBeDefined();
    expect(readdirSync(directory, { recursive: true }).filter((name) => String(name).includes(".key."))).toEqual([]);
  });

  it("finishes what was half made", async () => {
    const directory = copyOfKeys("half");
    const key = readFileSync(path.join(directory, "secure-boot/db.key"), "utf8");
    rmSync(path.join(directory, "secure-boot/db.crt"));
    expect((await initKeys(directory)).made).toEqual(["half/secure-boot/db.crt"]);
    expect(readFileSync(path.join(directory, "secure-boot/db.key"), "utf8")).toBe(key);
  });

  it("gives a folder of an earlier version what it lacks, and leaves the rest", async () => {
    const directory = copyOfKeys("earlier");
    rmSync(path.join(directory, "layers"), { recursive: true });
    rmSync(path.join(directory, "images"), { recursive: true });
    const before = contents(directory);
    const { made } = await initKeys(directory);
    expect(made.map((file) => path.relative("earlier", file)).sort()).toEqual([
      ...["images/signer.crt", "images/signer.key", "images/signer.pub"],
      ...["layers/layer.crt", "layers/layer.key", "layers/seal.crt", "layers/seal.key"],
    ]);
    expect(contents(directory)).toMatchObject(before);
  });

  it("renews the client's certificate, with the same key, when less than a third is left", async () => {
    const directory = copyOfKeys("renewed");
    const file = (name: string) => path.join(directory, "hosts", name);
    const authority = await readAuthority({ certificateFile: file("ca.crt"), keyFile: file("ca.key") });
    const key = createPublicKey(readFileSync(file("client.key"), "utf8"));
    const old = await signClientCertificate(authority, key, { role: "operator", days: 0.1 });
    expect(isClientRenewalDue(readClientCertificate(old))).toBe(true);
    writeFileSync(file("client.crt"), old);
    expect((await initKeys(directory)).made).toEqual(["renewed/hosts/client.crt"]);
    const now = readFileSync(file("client.crt"), "utf8");
    expect(isClientRenewalDue(readClientCertificate(now))).toBe(false);
    expect(new X509Certificate(now).publicKey.equals(new X509Certificate(old).publicKey)).toBe(true);
  });

  it("refuses keys that others can read, and says what to do", async () => {
    const directory = copyOfKeys("open");
    chmodSync(path.join(directory, "hosts/ca.key"), 0o644);
    await expect(initKeys(directory)).rejects.toThrow(/hosts\/ca\.key: mode is 0644.*chmod 0600/);
  });

  it("refuses a certificate whose key is gone", async () => {
    const directory = copyOfKeys("lost");
    rmSync(path.join(directory, "secure-boot/pk.key"));
    await expect(initKeys(directory)).rejects.toThrow(/secure-boot\/pk\.key: missing, but its certificate/);
    expect(existsSync(path.join(directory, "secure-boot/pk.key"))).toBe(false);
  });

  it("makes no new passphrase for stacks of a lost one", async () => {
    const home = path.join(folder, "forgetful");
    vi.stubEnv("PALISADE_HOME", home);
    mkdirSync(path.join(home, "backend/.pulumi/stacks/palisade"), { recursive: true, mode: 0o700 });
    chmodSync(home, 0o700);
    chmodSync(path.join(home, "backend"), 0o700);
    await expect(initKeys()).rejects.toThrow(/passphrase: missing, but there are stacks/);
    expect(existsSync(path.join(home, "passphrase"))).toBe(false);
  });
});

describe("palisade keys client", () => {
  it("makes a certificate of a role that the hosts' CA has signed, in a closed folder", async () => {
    const keys = path.join(folder, "home/keys");
    const directory = path.join(folder, "reader");
    const report = await makeClient(directory, { role: "reader", days: 3, keys });
    expect(tree(directory)).toEqual(["ca.crt", "client.crt", "client.key"].map((name) => [name, "600"]));
    expect(statSync(directory).mode & 0o777).toBe(0o700);
    const read = (name: string) => readFileSync(path.join(directory, name), "utf8");
    expect(read("ca.crt").trim()).toBe(readFileSync(path.join(keys, "hosts/ca.crt"), "utf8").trim());
    const certificate = new X509Certificate(read("client.crt"));
    expect(certificate.subject).toBe("CN=reader");
    expect(certificate.keyUsage).toEqual(["1.3.6.1.5.5.7.3.2"]);
    expect(certificate.checkPrivateKey(createPrivateKey(read("client.key")))).toBe(true);
    execFileSync("openssl", [
      ...["verify", "-x509_strict", "-purpose", "sslclient"],
      ...["-CAfile", path.join(directory, "ca.crt"), path.join(directory, "client.crt")],
    ]);
    const days = (report.notAfter.getTime() - Date.now()) / (24 * 60 * 60 * 1000);
    expect(days).toBeGreaterThan(2.9);
    expect(days).toBeLessThanOrEqual(3);
    expect(BigInt(`0x${report.serialNumber}`)).toBe(BigInt(`0x${certificate.serialNumber}`));
  });

  it("gives a folder of the role a new certificate for its key, and refuses one of another role", async () => {
    const keys = path.join(folder, "home/keys");
    const directory = path.join(folder, "again");
    const first = await makeClient(directory, { role: "reader", keys });
    const key = readFileSync(path.join(directory, "client.key"), "utf8");
    const second = await makeClient(directory, { role: "reader", keys });
    expect(second.serialNumber).not.toBe(first.serialNumber);
    expect(readFileSync(path.join(directory, "client.key"), "utf8")).toBe(key);
    const before = contents(directory);
    await expect(makeClient(directory, { role: "operator", keys })).rejects.toThrow(
      /client\.crt: is a certificate of the role reader, not of operator; name another folder/,
    );
    expect(contents(directory)).toEqual(before);
  });

  it("gives the key of a revoked certificate no other one", async () => {
    const keys = copyOfKeys("with-revoked");
    const directory = path.join(folder, "revoked");
    const { serialNumber } = await makeClient(directory, { role: "reader", keys });
    const own = readClientCertificate(readFileSync(path.join(keys, "hosts/client.crt"), "utf8")).serialNumber;
    await recordRevocations(path.join(keys, "hosts/ca.crt"), [serialNumber, own]);
    await expect(makeClient(directory, { role: "reader", keys })).rejects.toThrow(/client\.crt: is revoked/);
    await expect(initKeys(keys)).rejects.toThrow(/client\.crt: is revoked.*Move it and \S+client\.key away/);
    for (const name of ["client.crt", "client.key"]) rmSync(path.join(keys, "hosts", name));
    expect((await initKeys(keys)).made).toEqual(["with-revoked/hosts/client.key", "with-revoked/hosts/client.crt"]);
  });

  it("names the missing key of the CA", async () => {
    const keys = copyOfKeys("without-ca");
    rmSync(path.join(keys, "hosts/ca.key"));
    const directory = path.join(folder, "nothing");
    await expect(makeClient(directory, { role: "reader", keys })).rejects.toThrow(/hosts\/ca\.key cannot be read/);
    expect(existsSync(directory)).toBe(false);
  });
});
