/** Sealing on a real registry, with the real tools; openssl and veritysetup have the last word. */
import { spawnSync } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { copyFile, mkdtemp, open, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { defaultCacheDirectory } from "../../../shared/directories.js";
import { run } from "../../system/command.js";
import { digestOf, hexOf } from "../registry/digest.js";
import { imageIndexType, imageManifestType } from "../registry/media-types.js";
import { referrers } from "../registry/referrers.js";
import type { Descriptor, Repository } from "../registry/repository.js";
import type { SealObserved, SigningKey } from "../../backends/index.js";
import { simpleSigningPayload } from "./cosign.js";
import { architecture } from "./image.js";
import { LayerCache } from "./layer-cache.js";
import { openSeal, type SealManifest } from "./seal-manifest.js";
import { archiveOf } from "./testing/archives.js";
import { Bench, layerOf, makeKey, noise, putImage, tarOf, type TestLayer } from "./testing/bench.js";
import { sealTools } from "./tools.js";

let bench: Bench;
let base: TestLayer;
let app: TestLayer;
beforeAll(async () => {
  bench = await Bench.start(await mkdtemp(join(tmpdir(), "palisade-sealing-")));
  base = await layerOf(await tarOf({ "usr/": "", "usr/lib": "->lib64", "usr/big": noise("big", 3_000_000) }));
  app = await layerOf(await tarOf({ "app/": "", "app/hello": "hello\n", "usr/.wh.lib": "" }), "zstd");
}, 300_000);
afterAll(async () => {
  await bench?.stop();
  if (bench) await rm(bench.folder, { recursive: true, force: true });
});

interface Manifest {
  artifactType?: string;
  subject?: Descriptor;
  layers: Descriptor[];
}

/** A repository of a test's own with an image in it. */
async function withImage(
  name: string,
  layers: TestLayer[],
  work: (repository: Repository, image: string) => Promise<void>,
) {
  const repository = bench.repository(name);
  try {
    await work(repository, await putImage(repository, layers));
  } finally {
    repository.close();
  }
}

async function manifestOf(repository: Repository, reference: string): Promise<Manifest> {
  return JSON.parse((await repository.manifest(reference))!.bytes.toString());
}

async function sealOf(repository: Repository, digest: string): Promise<SealManifest> {
  const { layers } = await manifestOf(repository, digest);
  const certificate = new X509Certificate(await readFile(bench.keys.sealSigner.certificateFile));
  return openSeal(await repository.blob(layers[0]!.digest), certificate.publicKey);
}

const cacheOf = async (name: string) =>
  new LayerCache(join(bench.folder, "caches", name), await sealTools(defaultCacheDirectory()));

describe("a sealed image", () => {
  it("has a seal and signatures as the format says, referring to it", async () => {
    await withImage("format", [base, app], async (repository, image) => {
      const sealed = await bench.seal(await bench.machine("format"), "format", image);
      expect(sealed).toMatchObject({
        digest: image,
        reference: `${repository.server}/format@${image}`,
        reusedLayers: 0,
      });

      const seal = await sealOf(repository, sealed.sealDigest);
      const size = (await repository.manifest(image))!.bytes.length;
      expect(seal.image).toMatchObject({ digest: image, mediaType: imageManifestType });
      expect(seal.layers.map(({ diffId }) => diffId)).toEqual([base.diffId, app.diffId]);
      expect(seal.layers.map(({ rootHash }) => rootHash)).toEqual(sealed.rootHashes);
      expect(seal.layers.map(({ digest }) => digest)).toEqual([base, app].map(({ content }) => digestOf(content)));
      expect(seal.layerKey).toBe(sealed.layerKey);

      const subject = { mediaType: imageManifestType, digest: image, size };
      const notes = seal.layers.map((layer) => ({
        "image.layer.digest": layer.digest,
        "image.layer.root_hash": layer.rootHash,
      }));
      const blobs = seal.layers.map((layer, index) => ({
        mediaType: "application/vnd.erofs.layer.v1",
        digest: layer.blob,
        size: layer.size,
        annotations: notes[index],
      }));
      const manifest = await manifestOf(repository, sealed.sealDigest);
      expect(manifest).toMatchObject({ artifactType: "application/vnd.palisade.seal.v1", subject });
      expect(manifest.layers[0]!.mediaType).toBe("application/vnd.dsse.envelope.v1+json");
      expect(manifest.layers.slice(1, 3)).toEqual(blobs);
      const signatures = manifest.layers.slice(3);
      expect(signatures.map(({ annotations }) => annotations)).toEqual(notes);

      const listed = await referrers(repository, image);
      expect(listed.map(({ artifactType }) => artifactType).sort()).toEqual([
        "application/vnd.oci.mt.pkcs7",
        "application/vnd.palisade.seal.v1",
      ]);
      const other = listed.find(({ artifactType }) => artifactType!.endsWith("pkcs7"))!;
      const pkcs7 = await manifestOf(repository, other.digest);
      expect(pkcs7.subject).toEqual(subject);
      for (const [index, layer] of pkcs7.layers.entries()) {
        const content = await repository.blob(signatures[index]!.digest);
        expect(layer).toEqual({
          mediaType: "application/vnd.oci.image.layer.v1.erofs.sig",
          digest: digestOf(content),
          size: content.length,
          annotations: { ...notes[index], "image.layer.signature": content.toString("base64") },
        });
      }
    });
  });

  it("has blobs that veritysetup accepts with the root hash, and not after one byte changed", async () => {
    await withImage("verity", [base], async (_repository, image) => {
      const { rootHashes } = await bench.seal(await bench.machine("verity"), "verity", image);
      const { file, hashOffset } = (await (await cacheOf("verity")).find(base.diffId))!;
      const blob = join(bench.folder, "blob.erofs");
      await copyFile(file, blob);
      const tools = await sealTools(defaultCacheDirectory());
      const verify = () =>
        tools.run("veritysetup", ["verify", `--hash-offset=${hashOffset}`, blob, blob, rootHashes[0]!]);
      await verify();
      const change = await open(blob, "r+");
      await change.write(Buffer.from([0xff]), 0, 1, hashOffset - 5000);
      await change.close();
      await expect(verify()).rejects.toThrow(/Verification failed/);
    });
  });

  it("has signatures that openssl accepts for the layer key, and for no other", async () => {
    await withImage("signatures", [base], async (repository, image) => {
      const { sealDigest, rootHashes } = await bench.seal(await bench.machine("verity"), "signatures", image);
      const { layers } = await manifestOf(repository, sealDigest);
      const [signature, content] = [join(bench.folder, "p7s"), join(bench.folder, "root-hash")];
      await writeFile(signature, await repository.blob(layers.at(-1)!.digest));
      await writeFile(content, rootHashes[0]!);
      const verify = ({ certificateFile }: SigningKey) =>
        run("openssl", [
          ...["smime", "-verify", "-binary", "-inform", "der", "-in", signature, "-content", content],
          ...["-certfile", certificateFile, "-nointern", "-noverify", "-out", "/dev/null"],
        ]);
      await verify(bench.keys.layerSigner);
      await expect(verify(await makeKey(bench.folder, "stranger", "rsa"))).rejects.toThrow(/exit code/);
      await writeFile(content, "0".repeat(64));
      await expect(verify(bench.keys.layerSigner)).rejects.toThrow(/exit code/);
    });
  });

  it("is the same on two machines, whose caches know nothing of each other", async () => {
    const repositories = ["same/a", "same/b"];
    const sealed: SealObserved[] = [];
    for (const name of repositories) {
      await withImage(name, [base, app], async (_repository, image) => {
        sealed.push(await bench.seal(await bench.machine(name), name, image));
      });
    }
    const [one, other] = sealed.map(({ reference: _reference, ...rest }) => rest);
    expect(one!.reusedLayers).toBe(0);
    expect(other).toEqual(one);
    const blobs = await Promise.all(repositories.map(async (name) => (await cacheOf(name)).find(base.diffId)));
    expect(blobs[1]!.blob).toBe(blobs[0]!.blob);
    expect((await readFile(blobs[1]!.file)).equals(await readFile(blobs[0]!.file))).toBe(true);
  });

  it("is signed so that cosign accepts it for the public key, beside the signatures of others", async () => {
    await withImage("signed", [app], async (repository, image) => {
      const stranger = await makeKey(bench.folder, "other-signer", "ec");
      await bench.seal(await bench.machine("signed"), "signed", image, { imageSigner: stranger });
      for (let time = 0; time < 2; time++) await bench.seal(await bench.machine("signed"), "signed", image);
      const { layers } = await manifestOf(repository, `sha256-${hexOf(image)}.sig`);
      expect(layers).toHaveLength(2);
      const payload = join(bench.folder, "payload");
      await writeFile(payload, await repository.blob(layers[1]!.digest));
      expect(await readFile(payload)).toEqual(simpleSigningPayload(`${repository.server}/signed`, image));
      const signature = join(bench.folder, "cosign-signature");
      const text = layers[1]!.annotations!["dev.cosignproject.cosign/signature"]!;
      await writeFile(signature, Buffer.from(text, "base64"));
      const publicKey = join(bench.folder, "signer.pub");
      const verify = async ({ certificateFile }: SigningKey) => {
        const { publicKey: key } = new X509Certificate(await readFile(certificateFile));
        await writeFile(publicKey, key.export({ type: "spki", format: "pem" }));
        await run("openssl", ["dgst", "-sha256", "-verify", publicKey, "-signature", signature, payload]);
      };
      await verify(bench.keys.imageSigner);
      await expect(verify(bench.keys.sealSigner)).rejects.toThrow(/[Vv]erification failure/i);
    });
  });

  // Debian 12 has no cosign; openssl says the same of the signature above.
  it.runIf(spawnSync("cosign", ["version"]).status === 0)("is accepted by cosign itself", async () => {
    await withImage("cosign", [app], async (repository, image) => {
      await bench.seal(await bench.machine("signed"), "cosign", image);
      const { username, password, ca } = bench.access;
      const docker = join(bench.folder, "docker");
      await run("mkdir", ["-p", docker]);
      const auth = Buffer.from(`${username}:${password}`).toString("base64");
      await writeFile(join(docker, "config.json"), JSON.stringify({ auths: { [repository.server]: { auth } } }));
      const authority = join(bench.folder, "ca.crt");
      await writeFile(authority, ca!);
      const verify = async ({ certificateFile }: SigningKey) => {
        const { publicKey } = new X509Certificate(await readFile(certificateFile));
        const file = join(bench.folder, "cosign.pub");
        await writeFile(file, publicKey.export({ type: "spki", format: "pem" }));
        await run(
          "cosign",
          ["verify", "--key", file, "--insecure-ignore-tlog", `${repository.server}/cosign@${image}`],
          { environment: { DOCKER_CONFIG: docker, SSL_CERT_FILE: authority } },
        );
      };
      await verify(bench.keys.imageSigner);
      await expect(verify(bench.keys.sealSigner)).rejects.toThrow(/exit code/);
    });
  });
});

describe("what was sealed before", () => {
  it("is neither made nor uploaded again: a second image that shares a layer", async () => {
    await withImage("incremental", [base, app], async (repository, first) => {
      await bench.seal(await bench.machine("incremental"), "incremental", first);
      const more = await layerOf(await tarOf({ "app/more": "more\n" }), "none");
      const second = await putImage(repository, [base, more]);
      // A machine that has never seen the image.
      const sealed = await bench.seal(await bench.machine("newcomer"), "incremental", second);
      expect(sealed.reusedLayers).toBe(1);
      expect(bench.lines.join("\n")).toMatch(/layer 1 of 2.*taken from the registry[^]*layer 2 of 2.*: uploading/);
      expect(bench.lines.join("\n")).not.toMatch(/layer 1 of 2.*(sealing|uploading)/);
      const cache = await cacheOf("newcomer");
      expect(await cache.find(base.diffId)).toBeUndefined();
      expect(await cache.find(more.diffId)).toBeDefined();
      expect((await sealOf(repository, sealed.sealDigest)).layers).toHaveLength(2);
    });
  });

  it("is made anew over other layers when it depends on them, and only then", async () => {
    const plain = await layerOf(await tarOf({ "own/": "", "own/file": "same\n" }));
    const depends = await layerOf(await tarOf({ "usr/local": "depends\n" }));
    const closed = await layerOf(archiveOf([{ name: "usr/", mode: 0o700 }]));
    const seal = (image: string) => bench.machine("over").then((machine) => bench.seal(machine, "over", image));
    await withImage("over", [base, plain, depends], async (repository, first) => {
      const second = await putImage(repository, [closed, plain, depends]);
      const [one, other] = [await seal(first), await seal(second)];
      expect(other.rootHashes[1]).toBe(one.rootHashes[1]);
      expect(other.rootHashes[2]).not.toBe(one.rootHashes[2]);
      expect(other.reusedLayers).toBe(1);
      expect(bench.lines.join("\n")).toMatch(/layer 3 of 3.*is not used: it was made over other layers/);
      // From this machine's cache, which has both.
      expect(await seal(first)).toEqual({ ...one, reusedLayers: 3 });
      const many = await seal(await putImage(repository, [closed, depends, base, depends, depends]));
      expect(new Set([one.rootHashes[2], ...many.rootHashes]).size).toBe(4);
    });
  });

  it("is uploaded from this machine's cache to another repository", async () => {
    await withImage("elsewhere", [base], async (_repository, image) => {
      await bench.seal(await bench.machine("format"), "elsewhere", image);
      expect(bench.lines.join("\n")).toMatch(/layer 1 of 1.*taken from the cache/);
    });
  });

  it("is made again when the blob in the cache is cut off, or turns out to be damaged", async () => {
    await withImage("damaged", [app], async (_repository, image) => {
      const machine = await bench.machine("damaged");
      await bench.seal(machine, "damaged", image);
      const { file, size } = (await (await cacheOf("damaged")).find(app.diffId))!;
      const sealElsewhere = async (name: string) => {
        const elsewhere = bench.repository(name);
        await putImage(elsewhere, [app]);
        elsewhere.close();
        return bench.seal(machine, name, image);
      };
      await writeFile(file, "short");
      expect((await sealElsewhere("damaged/short")).reusedLayers).toBe(0);
      await writeFile(file, Buffer.alloc(size));
      // The registry compares the digest.
      await expect(sealElsewhere("damaged/long")).rejects.toThrow(/DIGEST_INVALID/);
      expect((await sealElsewhere("damaged/long")).reusedLayers).toBe(0);
    });
  });

  it("gets the same seal, also from many at once", async () => {
    await withImage("again", [base, app], async (repository, image) => {
      const machine = await bench.machine("format");
      const seals = await Promise.all([1, 2, 3].map(() => bench.seal(machine, "again", image)));
      seals.push(await bench.seal(machine, "again", image));
      expect(new Set(seals.map(({ sealDigest }) => sealDigest)).size).toBe(1);
      expect(await referrers(repository, image)).toHaveLength(2);
    });
  });

  it("gets a seal of its own by another seal key, beside the one of before", async () => {
    await withImage("rotated", [app], async (repository, image) => {
      const before = await bench.seal(await bench.machine("format"), "rotated", image);
      const sealSigner = await makeKey(bench.folder, "next-seal", "rsa");
      const after = await bench.seal(await bench.machine("format", { sealSigner }), "rotated", image);
      expect(after.sealKeyId).not.toBe(before.sealKeyId);
      expect(after.rootHashes).toEqual(before.rootHashes);
      const listed = (await referrers(repository, image)).map(({ digest }) => digest);
      expect(listed).toEqual(expect.arrayContaining([before.sealDigest, after.sealDigest]));
    });
  });
});

describe("a registry that lies", () => {
  const sealTag = (layer: TestLayer) => `sha256-${hexOf(layer.diffId)}.seal`;

  it("is not believed when it gives one layer's seal for another", async () => {
    await withImage("lies/swapped", [base, app], async (repository, image) => {
      const honest = await bench.seal(await bench.machine("lies"), "lies/swapped", image);
      const swapped = (await repository.manifest(sealTag(base)))!;
      await repository.putManifest(sealTag(app), swapped.bytes, imageManifestType);
      const { rootHashes } = await bench.seal(await bench.machine("lied-to"), "lies/swapped", image);
      expect(rootHashes).toEqual(honest.rootHashes);
      expect(bench.lines.join("\n")).toMatch(/layer 2 of 2.*is not used: it is the seal of sha256:/);
      expect(await (await cacheOf("lied-to")).find(app.diffId)).toBeDefined();
    });
  });

  it.each([
    ["seal", /no signature of the envelope is that of the key/],
    ["layer", /it was signed by another layer key/],
  ])("is not believed when the %s key is another", async (role, reason) => {
    await withImage(`lies/${role}`, [app], async (_repository, image) => {
      const key = await makeKey(bench.folder, `liar-${role}`, role === "seal" ? "ec" : "rsa");
      await bench.seal(await bench.machine("liar", { [`${role}Signer`]: key }), `lies/${role}`, image);
      const { reusedLayers } = await bench.seal(await bench.machine(`honest-${role}`), `lies/${role}`, image);
      expect(reusedLayers).toBe(0);
      expect(bench.lines.join("\n")).toMatch(reason);
    });
  });

  it("is not believed when it gives the signature of another layer", async () => {
    await withImage("lies/signature", [base, app], async (repository, image) => {
      await bench.seal(await bench.machine("lies"), "lies/signature", image);
      const [wrong, right] = [await manifestOf(repository, sealTag(base)), await manifestOf(repository, sealTag(app))];
      const mixed = { ...right, layers: [...right.layers.slice(0, 2), wrong.layers[2]!] };
      await repository.putManifest(sealTag(app), Buffer.from(JSON.stringify(mixed)), imageManifestType);
      await bench.seal(await bench.machine("lies"), "lies/signature", image);
      expect(bench.lines.join("\n")).toMatch(/layer 2 of 2.*is not used: its signature is not that of the layer key/);
    });
  });

  it("is refused, by name of the layer, when a layer is not what the image's configuration says", async () => {
    const wrong = { ...app, diffId: base.diffId.replace(/.{4}$/, "0000") };
    await withImage("lies/layer", [wrong], async (repository, image) => {
      await expect(bench.seal(await bench.machine("wrong"), "lies/layer", image)).rejects.toThrow(
        `layer's tar ${wrong.diffId}: what was read has the digest ${app.diffId}`,
      );
      expect(await referrers(repository, image)).toEqual([]);
      const kept = await readdir(join(bench.folder, "caches", "wrong", "seals"));
      expect(kept.filter((name) => name !== ".locks")).toEqual([]);
    });
  });
});

describe("an index", () => {
  const entry = (digest: string, size: number, os: string, arch: string) => ({
    mediaType: imageManifestType,
    digest,
    size,
    platform: { os, architecture: arch },
  });

  it("is sealed by its image for this architecture, and told so", async () => {
    await withImage("index", [app], async (repository, image) => {
      const { length } = (await repository.manifest(image))!.bytes;
      const other = await putImage(repository, [base]);
      const put = async (manifests: object[]) => {
        const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: imageIndexType, manifests }));
        await repository.putManifest(digestOf(bytes), bytes, imageIndexType);
        return digestOf(bytes);
      };
      const ours = entry(image, length, "linux", architecture);
      const foreign = entry(other, length, "linux", "s390x");
      const index = await put([foreign, ours, entry(other, length, "unknown", "unknown")]);
      const sealed = await bench.seal(await bench.machine("format"), "index", index);
      expect(sealed.digest).toBe(index);
      expect((await sealOf(repository, sealed.sealDigest)).image.digest).toBe(image);
      expect(bench.lines.join("\n")).toContain(image);
      // A reference by the index and one by the image are both signed.
      for (const digest of [index, image]) {
        expect(await repository.manifest(`sha256-${hexOf(digest)}.sig`)).toBeDefined();
      }
      const none = await put([foreign]);
      await expect(bench.seal(await bench.machine("format"), "index", none)).rejects.toThrow(/has no image for linux/);
      const two = await put([ours, entry(other, length, "linux", architecture)]);
      await expect(bench.seal(await bench.machine("format"), "index", two)).rejects.toThrow(
        /2 images.*give the digest/,
      );
    });
  });
});

it("an image that is not there is named", async () => {
  const missing = `sha256:${"0".repeat(64)}`;
  await expect(bench.seal(await bench.machine("format"), "missing", missing)).rejects.toThrow(
    `digest: ${missing} is not in missing`,
  );
});
