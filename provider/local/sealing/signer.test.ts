import { spawnSync } from "node:child_process";
import { verify } from "node:crypto";
import { chmod, mkdir, mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import type { SigningKey } from "../../backends/index.js";
import { defaultCacheDirectory } from "../../../shared/directories.js";
import { run } from "../../system/command.js";
import { isRootHashSignature, signRootHash } from "./root-hash-signature.js";
import { openSigner, type SignerRole } from "./signer.js";
import { makeKey } from "./testing/bench.js";
import { sealTools, type SealTools } from "./tools.js";

let folder: string;
let tools: SealTools;
let rsa: Required<Pick<SigningKey, "certificateFile" | "keyFile">>;
let ec: typeof rsa;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "palisade-signer-"));
  tools = await sealTools(defaultCacheDirectory());
  rsa = await makeKey(folder, "rsa", "rsa");
  ec = await makeKey(folder, "ec", "ec");
}, 300_000);
afterAll(async () => {
  vi.unstubAllEnvs();
  await rm(folder, { recursive: true, force: true });
});

const rootHash = "ab".repeat(32);
const data = Buffer.from("data");

describe("a signer with a key file", () => {
  it("signs so that its certificate's key verifies, each time the same", async () => {
    for (const pair of [rsa, ec]) {
      const signer = await openSigner("sealSigner", pair, tools);
      const signature = await signer.sign(data);
      expect(verify("sha256", data, signer.publicKey, signature)).toBe(true);
      expect(await signer.sign(data)).toEqual(signature);
    }
  });

  it("signs root hashes for its certificate and no other", async () => {
    const signature = await signRootHash(await openSigner("layerSigner", rsa, tools), rootHash);
    const stranger = await makeKey(folder, "stranger", "rsa");
    expect(await isRootHashSignature(tools, rsa.certificateFile, rootHash, signature)).toBe(true);
    expect(await isRootHashSignature(tools, stranger.certificateFile, rootHash, signature)).toBe(false);
    expect(await isRootHashSignature(tools, rsa.certificateFile, "cd".repeat(32), signature)).toBe(false);
    expect(await isRootHashSignature(tools, rsa.certificateFile, rootHash, Buffer.from("none"))).toBe(false);
    // Neither certificates nor attributes: about the signature and a name, as the kernel's parser wants it.
    expect(signature.length).toBeLessThan(500);
  });

  it.each<[string, SignerRole, () => SigningKey, RegExp]>([
    [
      "of another key",
      "layerSigner",
      () => ({ ...rsa, keyFile: ec.keyFile }),
      /^layerSigner\.keyFile: .*is not the key/,
    ],
    [
      "that is not there",
      "sealSigner",
      () => ({ ...ec, keyFile: "/nowhere" }),
      /^sealSigner\.keyFile: \/nowhere is no/,
    ],
    ["of a kind that does not fit", "layerSigner", () => ec, /^layerSigner\.certificateFile: .*not an RSA key/],
    [
      "of a kind that does not fit",
      "imageSigner",
      () => rsa,
      /^imageSigner\.certificateFile: .*not an EC key on P-256/,
    ],
    [
      "whose certificate is none",
      "imageSigner",
      () => ({ ...ec, certificateFile: ec.keyFile }),
      /^imageSigner\.certificateFile: .*is no certificate that can be read/,
    ],
    [
      "that is encrypted, without asking anybody",
      "sealSigner",
      () => ({ ...ec, keyFile: join(folder, "encrypted.key") }),
      /^sealSigner\.keyFile: .*no private key that can be read/,
    ],
  ])("refuses one %s, by the field", async (_name, role, reference, reason) => {
    const encrypted = [
      "pkcs8",
      "-topk8",
      "-in",
      ec.keyFile,
      "-passout",
      "pass:x",
      "-out",
      join(folder, "encrypted.key"),
    ];
    await run("openssl", encrypted);
    await expect(openSigner(role, reference(), tools)).rejects.toThrow(reason);
  });
});

describe.runIf(spawnSync("softhsm2-util", ["--version"]).status === 0)("a signer behind PKCS#11", () => {
  const pin = "canary-4711";
  const module = "/usr/lib/softhsm/libsofthsm2.so";
  let source: string;
  let log: string;
  const uri = (object: string, more = "") => `pkcs11:token=palisade;object=${object}?pin-source=file:${source}${more}`;

  beforeAll(async () => {
    source = join(folder, "pin");
    await writeFile(source, pin, { mode: 0o600 });
    await mkdir(join(folder, "tokens"));
    await writeFile(join(folder, "softhsm2.conf"), `directories.tokendir = ${join(folder, "tokens")}\n`);
    vi.stubEnv("SOFTHSM2_CONF", join(folder, "softhsm2.conf"));
    const hsm = (...args: string[]) =>
      run("softhsm2-util", args, { environment: { SOFTHSM2_CONF: join(folder, "softhsm2.conf") } });
    await hsm("--init-token", "--free", "--label", "palisade", "--pin", pin, "--so-pin", "1234");
    for (const [id, name, { keyFile }] of [
      ["01", "rsa", rsa],
      ["02", "ec", ec],
    ] as const) {
      await hsm("--import", keyFile, "--token", "palisade", "--label", name, "--id", id, "--pin", pin);
    }
    // Between us and openssl: what it is called with is written down.
    log = join(folder, "called");
    const real = (await run("bash", ["-c", "command -v openssl"])).trim();
    await mkdir(join(folder, "bin"));
    const script = `#!/bin/bash\n{ printf '%s\\n' "$@"; env; } >>${log}\nexec ${real} "$@"\n`;
    await writeFile(join(folder, "bin", "openssl"), script);
    await chmod(join(folder, "bin", "openssl"), 0o755);
    vi.stubEnv("PATH", `${join(folder, "bin")}:${process.env["PATH"]}`);
  });

  it.each(["", `&module-path=${module}`])("signs as one with a file does (%j)", async (more) => {
    const layer = { certificateFile: rsa.certificateFile, pkcs11Uri: uri("rsa", more) };
    const hardware = await openSigner("layerSigner", layer, tools);
    const file = await openSigner("layerSigner", rsa, tools);
    // RSA signatures of one key over one content are equal.
    expect(await signRootHash(hardware, rootHash)).toEqual(await signRootHash(file, rootHash));
    expect(await hardware.sign(data)).toEqual(await file.sign(data));
    const seal = await openSigner(
      "sealSigner",
      { certificateFile: ec.certificateFile, pkcs11Uri: uri("ec", more) },
      tools,
    );
    expect(verify("sha256", data, seal.publicKey, await seal.sign(data))).toBe(true);
  });

  it("shows the PIN neither in arguments nor in the environment", async () => {
    const called = await readFile(log, "utf8");
    expect(called).toContain("object=rsa");
    expect(called).toContain("SOFTHSM2_CONF");
    expect(called).not.toContain(pin);
  });

  it.each<[string, () => SigningKey, RegExp]>([
    ["another key", () => ({ ...rsa, pkcs11Uri: uri("ec") }), /^layerSigner\.pkcs11Uri: the key is not the one of/],
    ["a key that is not there", () => ({ ...rsa, pkcs11Uri: uri("none") }), /^layerSigner\.pkcs11Uri: .*does not sign/],
    [
      "a wrong PIN",
      () => ({ ...rsa, pkcs11Uri: uri("rsa").replace(source, `${source}-wrong`) }),
      /^layerSigner\.pkcs11Uri: the key does not sign/,
    ],
  ])("refuses %s, by the field", async (_name, reference, reason) => {
    await writeFile(`${source}-wrong`, "0000", { mode: 0o600 });
    const { keyFile: _keyFile, ...rest } = reference();
    await expect(openSigner("layerSigner", rest, tools)).rejects.toThrow(reason);
  });
});
