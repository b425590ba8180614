/**
 * Patches one image: scan, update, scan of the result, push by digest, attestation, and only then the tag. The tools
 * work in a registry of their own; only our own client uses the registry of the image, so that no tool has its
 * credentials.
 */
import { join } from "node:path";
import type { PatchObserved, PatchSpec, RegistryAccess } from "../../backends/index.js";
import { digestOf } from "../registry/digest.js";
import { imageManifestType } from "../registry/media-types.js";
import { Repository } from "../registry/repository.js";
import { attestImage } from "../sealing/cosign.js";
import { readImage } from "../sealing/image.js";
import type { Signer } from "../sealing/signer.js";
import { PatchRefusedError } from "./copa.js";
import { requireCoverage, type Database } from "./database.js";
import { debianReleases, requireSupported } from "./debian-releases.js";
import { patchedConfiguration, type ImageDocuments } from "./documents.js";
import { fixable, scanImage, type Scan } from "./scan.js";
import type { ToolAccess } from "./tool-access.js";
import { copyBlobs, readManifest, type ImageManifest } from "./transfer.js";
import { openVex, openVexType } from "./vex.js";

/** Repository in the tools' registry. */
const workRepository = "image";
const patchedTag = "patched";

/**
 * Annotations that say what an image was patched from:
 * https://github.com/opencontainers/image-spec/blob/main/annotations.md
 */
export const baseDigest = "org.opencontainers.image.base.digest";
const baseName = "org.opencontainers.image.base.name";
/** Copa's annotation with the time of a patch. */
const copaMark = "sh.copa.image.patched";

/** What an import needs beside the attestation; kept as its annotations. */
export const databaseNote = "org.palisade.database";
export const tagNote = "org.palisade.tag";

/** Named points at which tests end the call. */
export type Checkpoint = (name: "image-scanned" | "image-patched" | "image-pushed") => Promise<void>;

export interface Patching {
  database: Database;
  signer: Signer;
  /** The registry in which the tools work. */
  work: RegistryAccess;
  access: ToolAccess;
  /** Private folder for reports and blobs. */
  folder: string;
  /** Runs Copa on `reference`; returns the digest of what it pushed as `tag`. */
  update(reference: string, report: string, tag: string): Promise<string>;
  status(message: string): void;
  log(severity: "info" | "warning", message: string): void;
  checkpoint: Checkpoint;
  signal: AbortSignal;
}

/**
 * Patches an image, always from the original.
 *
 * @param previous digest of an earlier patch of the same original; it is kept while nothing in it is fixable.
 * @returns the original's digest when nothing in it is fixable; then nothing was pushed and no tag set.
 * @throws when the image cannot be patched as a whole; then nothing was pushed and no tag moved.
 */
export async function patchImage(patching: Patching, spec: PatchSpec, previous?: string): Promise<PatchObserved> {
  const { signal, work } = patching;
  const target = new Repository(spec.registry, spec.repository, signal);
  const local = new Repository(work, workRepository, signal);
  try {
    return await new Patch(patching, spec, target, local).run(previous);
  } finally {
    target.close();
    local.close();
  }
}

class Patch {
  private readonly place: string;
  private readonly scannedAt = new Date().toISOString();

  constructor(
    private readonly patching: Patching,
    private readonly spec: PatchSpec,
    private readonly target: Repository,
    private readonly local: Repository,
  ) {
    this.place = `${spec.registry.server}/${spec.repository}`;
  }

  async run(previous: string | undefined): Promise<PatchObserved> {
    const { patching, spec, target } = this;
    patching.status("fetching the image");
    const original = await readImage(target, spec.digest);
    const { digest } = original.descriptor;
    const before = await this.fetch(digest);
    this.requireUnpatched(before.manifest);
    patching.status("scanning the image");
    const scan = await this.scan(digest, "before.json");
    requireSupported(scan, await debianReleases(), this.scannedAt.slice(0, 10));
    requireCoverage(patching.database, scan);
    const fixableBefore = fixable(scan).length;
    patching.log("info", `${fixableBefore} fixable vulnerabilities in ${digest}`);
    await patching.checkpoint("image-scanned");
    if (fixableBefore === 0) return this.observed(spec.digest, scan, scan);

    const kept = previous === undefined ? undefined : await this.keep(previous, digest);
    const patched = kept ?? (await this.patch(digest, before));
    const vexReference = await this.publish(patched, scan);
    return this.observed(patched.digest, scan, patched.scan, vexReference);
  }

  /** An earlier patch of the same original that is still good. */
  private async keep(previous: string, original: string): Promise<Patched | undefined> {
    const { target, patching } = this;
    if ((await target.manifest(previous)) === undefined) return undefined;
    const { manifest, bytes } = await this.fetch(previous);
    if (manifest.annotations?.[baseDigest] !== original) return undefined;
    patching.status("scanning the patched image");
    const scan = await this.scan(previous, "previous.json");
    if (fixable(scan).length > 0) return undefined;
    patching.log("info", `${previous} has nothing fixable and stays`);
    return { digest: previous, manifest, bytes, scan };
  }

  private async patch(original: string, before: Fetched): Promise<Patched> {
    const { patching, local } = this;
    patching.status("patching");
    const report = join(patching.folder, "before.json");
    const reported = await patching.update(this.reference(original), report, patchedTag);
    const made = await readManifest(local, patchedTag);
    if (made.digest !== reported) {
      throw new Error(`digest: Copa says that it pushed ${reported}, the registry has ${made.digest}`);
    }
    await patching.checkpoint("image-patched");
    const documents = [await this.documents(before.manifest), await this.documents(made.manifest)] as const;
    const configuration = Buffer.from(JSON.stringify(patchedConfiguration(...documents)));
    const config = { ...made.manifest.config, digest: digestOf(configuration), size: configuration.length };
    await local.putBlob(config, configuration);
    const annotations = {
      ...made.manifest.annotations,
      [baseDigest]: original,
      [baseName]: `${this.place}@${original}`,
    };
    const manifest = { ...made.manifest, config, annotations };
    const bytes = Buffer.from(JSON.stringify(manifest));
    const { digest } = await putManifest(local, bytes, manifest);
    // Scans the image that is pushed, not the one that Copa intended.
    patching.status("scanning the patched image");
    const scan = await this.scan(digest, "after.json");
    const left = fixable(scan);
    if (left.length > 0) {
      const words = left.map(
        ({ id, package: name, installedVersion, fixedVersion }) =>
          `${id} in ${name} ${installedVersion}, lower than required ${fixedVersion}`,
      );
      throw new PatchRefusedError(
        `digest: the patched image still has ${left.length} fixable vulnerabilities: ${words.slice(0, 5).join("; ")}; nothing was pushed; ` +
          "try again when the image's package sources have the versions",
      );
    }
    return { digest, manifest, bytes, scan };
  }

  /** Pushes by digest, attests, and sets the tag last. */
  private async publish(patched: Patched, before: Scan): Promise<string> {
    const { patching, target, local, spec } = this;
    const { digest, manifest, bytes, scan } = patched;
    patching.status(`pushing to ${this.place}`);
    await copyBlobs(local, target, manifest, patching.folder, patching.signal);
    await putManifest(target, bytes, manifest);
    await patching.checkpoint("image-pushed");
    const document = openVex(before, scan, this.place, digest, this.scannedAt);
    const attestation = await attestImage(target, digest, openVexType, document, patching.signer, {
      [databaseNote]: patching.database.digest,
      ...(spec.tag === undefined ? {} : { [tagNote]: spec.tag }),
    });
    if (spec.tag !== undefined) await target.putManifest(spec.tag, bytes, manifest.mediaType ?? imageManifestType);
    return `${this.place}@${attestation}`;
  }

  private observed(digest: string, before: Scan, after: Scan, vexReference?: string): PatchObserved {
    const remaining = new Set(after.vulnerabilities.map(({ id, package: name }) => `${id} ${name}`));
    return {
      digest,
      reference: `${this.place}@${digest}`,
      fixableBefore: fixable(before).length,
      fixableAfter: fixable(after).length,
      remaining: [...remaining].sort(),
      databaseDigest: this.patching.database.digest,
      scannedAt: this.scannedAt,
      ...(vexReference === undefined ? {} : { vexReference }),
    };
  }

  /** Copies an image into the tools' registry. */
  private async fetch(digest: string): Promise<Fetched> {
    const { target, local, patching } = this;
    const { manifest, bytes } = await readManifest(target, digest);
    await copyBlobs(target, local, manifest, patching.folder, patching.signal);
    await putManifest(local, bytes, manifest);
    return { manifest, bytes };
  }

  private requireUnpatched({ annotations = {} }: ImageManifest): void {
    const [base, mark] = [annotations[baseDigest], annotations[copaMark]];
    if (mark === undefined) return;
    throw new Error(
      `digest: ${this.spec.digest} is a patched image${base === undefined ? "" : ` of ${base}`}; give the original, from which every ` +
        "patch starts",
    );
  }

  private async documents(manifest: ImageManifest): Promise<ImageDocuments> {
    const configuration = await this.local.blob(manifest.config.digest);
    return { manifest, configuration: JSON.parse(configuration.toString()) as ImageDocuments["configuration"] };
  }

  private scan(digest: string, report: string): Promise<Scan> {
    const { database, access, folder, signal } = this.patching;
    return scanImage(this.reference(digest), database, access, join(folder, report), signal);
  }

  private reference(digest: string): string {
    return `${this.local.server}/${workRepository}@${digest}`;
  }
}

interface Fetched {
  manifest: ImageManifest;
  bytes: Buffer;
}

interface Patched extends Fetched {
  digest: string;
  scan: Scan;
}

async function putManifest(
  repository: Repository,
  bytes: Buffer,
  manifest: ImageManifest,
): Promise<{ digest: string }> {
  const digest = digestOf(bytes);
  await repository.putManifest(digest, bytes, manifest.mediaType ?? imageManifestType);
  return { digest };
}
