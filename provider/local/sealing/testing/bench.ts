/** For tests of sealing: a real registry, keys, and images made on the spot. */
import { createHash } from "node:crypto";
import { mkdir, symlink } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { gzip, zstdCompress } from "node:zlib";
import { pack } from "tar-stream";
import { expect } from "vitest";
import { noCheckpoint, type RegistryAccess, type SealSpec, type SigningKey } from "../../../backends/index.js";
import { defaultCacheDirectory } from "../../../../shared/directories.js";
import { run } from "../../../system/command.js";
import { testOperation } from "../../../system/testing.js";
import { digestOf, hexOf } from "../../registry/digest.js";
import { LocalRegistries } from "../../registry/local-registries.js";
import { imageManifestType } from "../../registry/media-types.js";
import { referrers } from "../../registry/referrers.js";
import { Repository, type Descriptor } from "../../registry/repository.js";
import { architecture } from "../image.js";
import { sealImage, type Checkpoint } from "../seal-image.js";
import type { Sealing } from "../sealing.js";
import { openSigner } from "../signer.js";
import { sealTools } from "../tools.js";

export interface TestLayer {
  mediaType: string;
  content: Buffer;
  diffId: string;
}

/** Files by path; a path that ends in `/` is a folder, a content that begins with `->` a symbolic link. */
export async function tarOf(files: Record<string, string | Buffer>): Promise<Buffer> {
  const archive = pack();
  const chunks: Buffer[] = [];
  const read = (async () => {
    for await (const chunk of archive) chunks.push(chunk as Buffer);
  })();
  for (const [name, content] of Object.entries(files)) {
    const mtime = new Date(1_700_000_000_000);
    if (name.endsWith("/")) archive.entry({ name, type: "directory", mode: 0o755, mtime });
    else if (String(content).startsWith("->")) {
      archive.entry({ name, type: "symlink", linkname: String(content).slice(2), mode: 0o777, mtime });
    } else archive.entry({ name, mode: 0o644, mtime }, content);
  }
  archive.finalize();
  await read;
  return Buffer.concat(chunks);
}

export async function layerOf(tar: Buffer, compression: "none" | "gzip" | "zstd" = "gzip"): Promise<TestLayer> {
  const base = "application/vnd.oci.image.layer.v1.tar";
  const diffId = digestOf(tar);
  if (compression === "none") return { mediaType: base, content: tar, diffId };
  const content = compression === "gzip" ? await promisify(gzip)(tar) : await promisify(zstdCompress)(tar);
  return { mediaType: `${base}+${compression}`, content, diffId };
}

/** Bytes that look random and are always the same. */
export function noise(seed: string, size: number): Buffer {
  const block = (index: number) => createHash("sha256").update(`${seed} ${index}`).digest();
  return Buffer.concat(Array.from({ length: Math.ceil(size / 32) }, (_, index) => block(index))).subarray(0, size);
}

/** Puts an image of these layers into a repository; returns its digest. */
export async function putImage(repository: Repository, layers: TestLayer[], labels = {}): Promise<string> {
  const config = Buffer.from(
    JSON.stringify({
      architecture,
      os: "linux",
      config: { Labels: labels },
      rootfs: { type: "layers", diff_ids: layers.map(({ diffId }) => diffId) },
    }),
  );
  const descriptor = (mediaType: string, content: Buffer) => ({
    mediaType,
    digest: digestOf(content),
    size: content.length,
  });
  for (const content of [config, ...layers.map((layer) => layer.content)]) {
    await repository.putBlob({ digest: digestOf(content), size: content.length }, content);
  }
  const manifest = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: imageManifestType,
      config: descriptor("application/vnd.oci.image.config.v1+json", config),
      layers: layers.map(({ mediaType, content }) => descriptor(mediaType, content)),
    }),
  );
  const digest = digestOf(manifest);
  await repository.putManifest(digest, manifest, imageManifestType);
  return digest;
}

/** Each manifest that can be found of an image's seal has all that it names. */
export async function expectWhole(repository: Repository, image: string, layers: TestLayer[]): Promise<void> {
  const tags = [...layers.map(({ diffId }) => `sha256-${hexOf(diffId)}.seal`), `sha256-${hexOf(image)}.sig`];
  const found = (await referrers(repository, image)).map(({ digest }) => digest);
  for (const reference of [...tags, ...found]) {
    const manifest = await repository.manifest(reference);
    if (manifest === undefined && tags.includes(reference)) continue;
    expect(manifest, reference).toBeDefined();
    const named = JSON.parse(manifest!.bytes.toString()) as { config: Descriptor; layers: Descriptor[] };
    for (const { digest } of [named.config, ...named.layers])
      expect(await repository.hasBlob(digest), digest).toBe(true);
  }
}

/** A key with its certificate, made by openssl. */
export async function makeKey(
  folder: string,
  name: string,
  kind: "rsa" | "ec",
): Promise<Required<Pick<SigningKey, "certificateFile" | "keyFile">>> {
  const files = { certificateFile: join(folder, `${name}.crt`), keyFile: join(folder, `${name}.key`) };
  const key = kind === "rsa" ? ["rsa:2048"] : ["ec", "-pkeyopt", "ec_paramgen_curve:P-256"];
  await run("openssl", [
    ...["req", "-x509", "-newkey", ...key, "-nodes", "-days", "2", "-subj", `/CN=test ${name}`],
    ...["-keyout", files.keyFile, "-out", files.certificateFile],
  ]);
  return files;
}

/** A registry, three keys, and sealing with caches of one's own. */
export class Bench {
  private constructor(
    readonly folder: string,
    readonly access: RegistryAccess,
    readonly keys: { layerSigner: SigningKey; sealSigner: SigningKey; imageSigner: SigningKey },
    readonly stop: () => Promise<void>,
  ) {}

  static async start(folder: string): Promise<Bench> {
    // Made once per machine, which takes longer than a test may.
    await sealTools(defaultCacheDirectory());
    const registries = new LocalRegistries(join(folder, "state"));
    const registry = await registries.createRegistry(testOperation("sealing"), { port: 0 });
    const keys = join(folder, "keys");
    await mkdir(keys, { mode: 0o700 });
    const made = {
      layerSigner: await makeKey(keys, "layer", "rsa"),
      sealSigner: await makeKey(keys, "seal", "ec"),
      imageSigner: await makeKey(keys, "signer", "ec"),
    };
    const { server, username, password, ca } = registry;
    return new Bench(folder, { server, username, password, ca }, made, () =>
      registries.deleteRegistry(testOperation("sealing"), registry.id),
    );
  }

  /** A cache of one's own for code that looks for the tools itself; the Debian root in it is this machine's. */
  async cache(name: string): Promise<string> {
    const cache = join(this.folder, "caches", name);
    await mkdir(cache, { recursive: true });
    await symlink(join(defaultCacheDirectory(), "image"), join(cache, "image"));
    return cache;
  }

  repository(name: string): Repository {
    return new Repository(this.access, name);
  }

  /** Log and status lines of the sealing. */
  readonly lines: string[] = [];

  /**
   * A machine that seals: its cache is its own, the tools are this machine's.
   *
   * @param cache name of the cache.
   */
  async machine(cache: string, keys: Partial<Bench["keys"]> = {}, signal?: AbortSignal): Promise<Sealing> {
    const tools = await sealTools(defaultCacheDirectory());
    const { layerSigner, sealSigner } = { ...this.keys, ...keys };
    this.lines.length = 0;
    return {
      tools,
      layerSigner: await openSigner("layerSigner", layerSigner, tools),
      layerCertificateFile: layerSigner.certificateFile,
      sealSigner: await openSigner("sealSigner", sealSigner, tools),
      cacheDirectory: join(this.folder, "caches", cache),
      status: (message) => void this.lines.push(message),
      log: (severity, message) => void this.lines.push(`${severity}: ${message}`),
      ...(signal === undefined ? {} : { signal }),
    };
  }

  async seal(
    sealing: Sealing,
    repository: string,
    digest: string,
    options: Partial<SealSpec> & { checkpoint?: Checkpoint } = {},
  ) {
    const { checkpoint = noCheckpoint, ...more } = options;
    return sealImage(sealing, { registry: this.access, repository, digest, ...this.keys, ...more }, checkpoint);
  }
}
