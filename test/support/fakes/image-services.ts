/**
 * What builds, patches, seals and publishes images in a World. An image that was not built here belongs to another
 * registry.
 */
import { createHash, X509Certificate } from "node:crypto";
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import type {
  ChannelPublication,
  Channels,
  ChannelSpec,
  ChannelTarget,
  DebianImageObserved,
  DebianImageSpec,
  ImageBuilder,
  ImagePatcher,
  ImageSealer,
  MadeFrom,
  Operation,
  PatchedFound,
  PatchObserved,
  PatchSpec,
  RegistryAccess,
  SealObserved,
  SealSpec,
  SigningKey,
} from "../../../provider/backends/index.js";
import { PropertyError } from "../../../provider/backends/errors.js";
import { publish, published, requireAccess } from "./registry.js";
import type { World } from "./world.js";

const digestOf = (value: unknown): string =>
  `sha256:${createHash("sha256").update(JSON.stringify(value)).digest("hex")}`;

function readSigner(property: string, file: string): Buffer {
  try {
    return readFileSync(file);
  } catch (error) {
    throw new PropertyError([{ property, reason: `${file} cannot be read: ${(error as Error).message}` }]);
  }
}

/** Certificates are distinguished by their content, as on the real machine. */
function keyOf(role: string, { certificateFile }: SigningKey): string {
  return createHash("sha256")
    .update(readSigner(`${role}.certificateFile`, certificateFile))
    .digest("hex");
}

/** Throws when the file of a key is missing, before anything is made. */
function requireKeys(signers: Record<string, SigningKey | undefined>): void {
  for (const [role, signer] of Object.entries(signers)) {
    if (!signer) continue;
    keyOf(role, signer);
    if (signer.keyFile !== undefined) readSigner(`${role}.keyFile`, signer.keyFile);
  }
}

/** The public key, PEM; undefined when the file is no real certificate, as most in a World. */
function publicKeyOf({ certificateFile }: SigningKey): string | undefined {
  try {
    const { publicKey } = new X509Certificate(readFileSync(certificateFile));
    return publicKey.export({ type: "spki", format: "pem" }).toString().trim();
  } catch {
    return undefined;
  }
}

/** An image as it was built; `registry` is the server. */
type BuiltImage = Omit<DebianImageSpec, "registry"> & { registry: string };

/** The image with that digest, if it was built in this world. */
function built(world: World, repository: string, digest: string): BuiltImage | undefined {
  return published<BuiltImage>(world, "images").find(
    (image) => image.repository === repository && digestOf(image) === digest,
  );
}

export class FakeImages implements ImageBuilder {
  constructor(private readonly world: World) {}

  async buildDebianImage(op: Operation, spec: DebianImageSpec): Promise<DebianImageObserved> {
    requireAccess(this.world, spec.registry, spec.repository);
    const content = { ...spec, registry: spec.registry.server };
    await publish(this.world, "images", "image", op, content, ["image-built", "image-pushed"]);
    return this.image(spec.registry, spec.repository, digestOf(content));
  }

  async readImage(
    registry: RegistryAccess,
    repository: string,
    digest: string,
  ): Promise<DebianImageObserved | undefined> {
    requireAccess(this.world, registry, repository);
    return built(this.world, repository, digest) && this.image(registry, repository, digest);
  }

  async readMadeFrom(registry: RegistryAccess, repository: string, digest: string): Promise<MadeFrom | undefined> {
    requireAccess(this.world, registry, repository);
    const spec = built(this.world, repository, digest);
    if (!spec) return undefined;
    const { registry: _server, ...content } = spec;
    return { ...content, inputsHash: await this.inputsHash() };
  }

  async inputsHash(): Promise<string> {
    return "fake-builder-1";
  }

  private image(registry: RegistryAccess, repository: string, digest: string): DebianImageObserved {
    return { digest, reference: `${registry.server}/${repository}@${digest}` };
  }
}

interface Seal {
  server: string;
  repository: string;
  digest: string;
  layerKey: string;
  sealKeyId: string;
  /** The hash of the certificate whose key signed the image. */
  imageKey?: string;
}

const sealsOf = (world: World, server: string, repository: string, digest: string): Seal[] =>
  published<Seal>(world, "seals").filter(
    (seal) => seal.digest === digest && seal.repository === repository && seal.server === server,
  );

export class FakeSealer implements ImageSealer {
  constructor(private readonly world: World) {}

  async identify({ layerSigner, sealSigner }: Pick<SealSpec, "layerSigner" | "sealSigner">) {
    return { layerKey: keyOf("layerSigner", layerSigner), sealKeyId: keyOf("sealSigner", sealSigner) };
  }

  async seal(op: Operation, spec: SealSpec): Promise<SealObserved> {
    const { registry, imageSigner, ...rest } = spec;
    const { layerSigner, sealSigner } = spec;
    requireKeys({ layerSigner, sealSigner, imageSigner });
    requireAccess(this.world, registry, spec.repository);
    const imageKey = imageSigner && keyOf("imageSigner", imageSigner);
    const kept = {
      ...{ ...rest, server: registry.server, ...(await this.identify(spec)) },
      ...(imageKey === undefined ? {} : { imageKey }),
    };
    const isKnown = published<Seal>(this.world, "seals").some(
      ({ digest, layerKey }) => digest === kept.digest && layerKey === kept.layerKey,
    );
    const steps = ["layer-sealed", ...(imageSigner ? ["image-signed"] : []), "seal-published"];
    await publish(this.world, "seals", "seal", op, kept, steps);
    return this.sealed(kept, isKnown ? 1 : 0);
  }

  async readSeal(
    registry: RegistryAccess,
    repository: string,
    digest: string,
    known?: SealObserved,
    sealCertificateFile?: string,
  ): Promise<SealObserved | undefined> {
    requireAccess(this.world, registry, repository);
    const all = sealsOf(this.world, registry.server, repository, digest).map((seal) =>
      this.sealed(seal, known?.reusedLayers ?? 0),
    );
    const key =
      sealCertificateFile === undefined ? undefined : keyOf("sealSigner", { certificateFile: sealCertificateFile });
    const same = all.find(({ sealDigest }) => sealDigest === known?.sealDigest);
    if (known && key !== undefined && known.sealKeyId !== key) return same && known;
    return same ?? all.filter(({ sealKeyId }) => key === undefined || sealKeyId === key).at(-1);
  }

  private sealed({ server, repository, digest, layerKey, sealKeyId }: Seal, reusedLayers: number): SealObserved {
    const reference = `${server}/${repository}@${digest}`;
    const sealDigest = digestOf([reference, layerKey, sealKeyId]);
    return { digest, reference, sealDigest, rootHashes: ["22".repeat(32)], layerKey, sealKeyId, reusedLayers };
  }
}

/** The digest of this world's vulnerability database. It has one fixable vulnerability. */
const database = digestOf("database");

interface Patch {
  server: string;
  repository: string;
  original: string;
  imageSigner: SigningKey;
  tag?: string;
}

export class FakePatcher implements ImagePatcher {
  constructor(private readonly world: World) {}

  async databaseDigest(directory?: string): Promise<string> {
    if (directory !== undefined && !existsSync(path.join(directory, "db/metadata.json"))) {
      const reason = `${directory} holds no vulnerability database; make one with: palisade vulndb build PACKAGE...`;
      throw new PropertyError([{ property: "database", reason }]);
    }
    return database;
  }

  async requireTools(): Promise<void> {}

  async patch(op: Operation, spec: PatchSpec, _previous?: string): Promise<PatchObserved> {
    const { server } = spec.registry;
    const { repository, digest: original, imageSigner, tag } = spec;
    await this.databaseDigest(spec.database);
    requireKeys({ imageSigner });
    requireAccess(this.world, spec.registry, repository);
    const earlier = this.find(server, repository, original);
    if (earlier) {
      throw new Error(`${original} is a patched image of ${earlier.original}; give the original`);
    }
    const kept = { server, repository, original, imageSigner, ...(tag === undefined ? {} : { tag }) };
    await publish(this.world, "patches", "patch", op, kept, ["image-scanned", "image-patched", "image-pushed"]);
    return this.patched(kept).observed;
  }

  async readPatched(
    registry: RegistryAccess,
    repository: string,
    digest: string,
    isKnown: boolean,
  ): Promise<PatchedFound | undefined> {
    requireAccess(this.world, registry, repository);
    const reference = `${registry.server}/${repository}@${digest}`;
    const patch = this.find(registry.server, repository, digest);
    if (!patch) return built(this.world, repository, digest) && { digest, reference };
    if (isKnown) return { digest, reference };
    const made = this.patched(patch);
    return { digest, reference, made: { ...made, ...this.channel(`${registry.server}/${repository}:`, made) } };
  }

  async endPatch(): Promise<void> {}

  private find(server: string, repository: string, digest: string): Patch | undefined {
    return published<Patch>(this.world, "patches").find(
      (patch) =>
        patch.server === server && patch.repository === repository && this.patched(patch).observed.digest === digest,
    );
  }

  private channel(
    place: string,
    { observed, imageSigner }: NonNullable<PatchedFound["made"]>,
  ): Pick<NonNullable<PatchedFound["made"]>, "channel"> {
    const found = this.world
      .list<string>("channels")
      .find(({ id, spec }) => id.startsWith(place) && spec === observed.digest);
    if (!found) return {};
    const signers = { layerSigner: imageSigner, sealSigner: imageSigner };
    return { channel: { name: found.id.slice(place.length), digest: found.spec, ...signers } };
  }

  private patched({ server, repository, original, imageSigner, tag }: Patch): NonNullable<PatchedFound["made"]> {
    const digest = digestOf(["patched", original]);
    const place = `${server}/${repository}`;
    return {
      ...{ original, imageSigner, ...(tag === undefined ? {} : { tag }) },
      observed: {
        ...{ digest, reference: `${place}@${digest}`, vexReference: `${place}@${digestOf(["attested", digest])}` },
        ...{ fixableBefore: 1, fixableAfter: 0, remaining: [], databaseDigest: database },
        scannedAt: new Date(0).toISOString(),
      },
    };
  }
}

/**
 * Moves a channel, `<server>/<repository>:<channel>`.
 *
 * @param publishedBy the publisher's public key, PEM; default: none, as for anyone who may set a tag of the registry.
 */
export function setChannel(world: World, place: string, digest: string, publishedBy?: string): void {
  const owner = { backend: "", project: "", stack: "", urn: "" };
  const observed = publishedBy === undefined ? {} : { publishedBy };
  world.put("channels", { id: place, owner, finished: true, spec: digest, observed });
}

export class FakeChannels implements Channels {
  constructor(private readonly world: World) {}

  async resolve(spec: ChannelSpec, publicKey?: string): Promise<string | undefined> {
    requireAccess(this.world, spec.registry, spec.repository);
    const found = this.world.get<string>("channels", this.id(spec));
    if (found && publicKey !== undefined && found.observed["publishedBy"] !== publicKey.trim()) {
      throw new Error(
        `${this.place(spec)} leads to ${found.spec}, which publicKey has not published into it; whoever moved it has another key`,
      );
    }
    return found?.spec;
  }

  async publish(op: Operation, spec: ChannelPublication, from?: string): Promise<ChannelTarget> {
    const { registry, repository, digest, sealSigner, imageSigner } = spec;
    requireKeys({ imageSigner });
    const sealKey = keyOf("sealSigner", sealSigner);
    const present = await this.resolve(spec);
    const place = this.place(spec);
    if (from !== undefined && present !== undefined && present !== from && present !== digest) {
      op.log(
        "warning",
        `${place} leads to ${present} and not to ${from} any more: whoever moved it owns it, so it stays`,
      );
      return { digest: present };
    }
    const seals = sealsOf(this.world, registry.server, repository, digest);
    if (!seals.some(({ sealKeyId }) => sealKeyId === sealKey)) {
      throw new Error(`${place} stays: ${digest} has no seal by the key of sealSigner`);
    }
    if (!seals.some(({ imageKey }) => imageKey === keyOf("imageSigner", imageSigner))) {
      throw new Error(`${place} stays: ${digest} is not signed by the key of imageSigner`);
    }
    const publisher = publicKeyOf(imageSigner);
    const publishedBy = this.world.get<string>("channels", this.id(spec))?.observed["publishedBy"];
    if (present === digest && publishedBy === publisher) return { digest };
    setChannel(this.world, this.id(spec), digest, publisher);
    await op.checkpoint("channel-moved");
    await this.world.reach("channel-moved", op.signal);
    return { digest };
  }

  private id({ registry, repository, channel }: ChannelSpec): string {
    return `${registry.server}/${repository}:${channel}`;
  }

  private place({ registry, repository, channel }: ChannelSpec): string {
    return `channel ${channel} of ${registry.server}/${repository}`;
  }
}
