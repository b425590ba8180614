/**
 * The contracts of ImageBuilder, ImageSealer, ImagePatcher and Channels: what they do in a registry, as the provider's
 * resources see it. The patcher's has two parts, as a patch needs tools and minutes: test/layers/patch holds the real
 * one to `patchContract`.
 */
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import type {
  Channels,
  ChannelSpec,
  DebianImageSpec,
  ImageBuilder,
  ImagePatcher,
  ImageSealer,
  PatchSpec,
  RegistryAccess,
  SealSpec,
  SigningKey,
} from "../../../provider/backends/index.js";
import { readCertificate } from "../../../provider/local/sealing/signer.js";
import { refusedPassword } from "../../support/fakes/registry.js";
import { operation } from "./subject.js";

export interface ImageSubject {
  images: ImageBuilder;
  sealer: ImageSealer;
  channels: Channels;
  patcher: Pick<ImagePatcher, "databaseDigest" | "readPatched">;
  /** With the credentials of a registry of this machine. */
  registry: RegistryAccess;
  keys: { layerSigner: SigningKey; sealSigner: SigningKey; imageSigner: SigningKey };
  /** Keys for sealing and signing that nobody trusts. */
  others: { sealSigner: SigningKey; imageSigner: SigningKey };
  /** What to build an image from. */
  packages: Pick<DebianImageSpec, "suite" | "packages">;
  /** Folder that holds a vulnerability database. */
  database: string;
  /** Sets a channel as somebody can who may write to the registry and has no key. */
  setChannel(channel: ChannelSpec, digest: string): Promise<void>;
}

/** Gives the subject; called once for each suite. */
export type MakeImageSubject = () => Promise<{ subject: ImageSubject; dispose(): Promise<void> }>;

const digestPattern = /^sha256:[0-9a-f]{64}$/;
const hashPattern = /^[0-9a-f]{64}$/;
const absent = `sha256:${"0".repeat(64)}`;

const failureOf = (work: Promise<unknown>): Promise<Error & { failures?: { property: string }[] }> =>
  work.then(
    () => expect.fail("the call succeeds, expected an error"),
    (error: Error) => error,
  );

/** An error by the field, before anything is made. */
async function expectWrongField(work: Promise<unknown>, field: string): Promise<void> {
  const failure = await failureOf(work);
  expect(failure.name).toBe("PropertyError");
  expect(failure.failures!.map(({ property }) => property)).toEqual([field]);
}

/** Credentials are refused by name and not repeated. */
async function expectNoAccess(work: Promise<unknown>, registry: RegistryAccess): Promise<void> {
  const failure = await failureOf(work);
  expect(failure.message).toMatch(/refuses access to .* \(HTTP 401\); check username and password/);
  expect(failure.message).not.toContain(registry.password);
}

/** One suite of a subject's own. */
function suite(name: string, make: MakeImageSubject, tests: (subject: () => ImageSubject) => void): void {
  describe(name, () => {
    let made: Awaited<ReturnType<MakeImageSubject>>;
    beforeAll(async () => {
      made = await make();
    });
    afterAll(async () => made?.dispose());
    tests(() => made.subject);
  });
}

/** Files that cannot be read, each by its field. */
const unreadable = (key: SigningKey): [string, SigningKey][] => [
  ["certificateFile", { ...key, certificateFile: "/nowhere/key.crt" }],
  ["keyFile", { ...key, keyFile: "/nowhere/key.key" }],
];

/** Builds an image with that content; returns its digest. */
async function build(subject: ImageSubject, repository: string, content: string): Promise<string> {
  const spec = specOf(subject, { repository, files: { "/content": content } });
  return (await subject.images.buildDebianImage(operation(`image ${repository} ${content}`), spec)).digest;
}

const specOf = ({ registry, packages }: ImageSubject, more: Partial<DebianImageSpec> = {}): DebianImageSpec => ({
  ...{ registry, repository: "built/web", tag: "1", ...packages, entrypoint: ["/web"], command: ["--port=80"] },
  ...{ environment: { MODE: "production" }, workingDirectory: "/srv", files: { "/etc/motd": "hello\n" }, ...more },
});

export function imageBuilderContract(implementation: string, make: MakeImageSubject): void {
  suite(`builder: ${implementation}`, make, (subject) => {
    const builder = () => subject().images;
    let digest: string;

    it("builds an image, the same for the same content, also after calls that were cancelled half-way", async () => {
      const spec = specOf(subject());
      for (const checkpoint of ["image-built", "image-pushed"]) {
        expect((await failureOf(builder().buildDebianImage(operation("web", checkpoint), spec))).name).toBe(
          "AbortError",
        );
      }
      const op = operation("web");
      const made = await builder().buildDebianImage(op, spec);
      ({ digest } = made);
      expect(made).toEqual({ digest, reference: `${spec.registry.server}/built/web@${digest}` });
      expect(digest).toMatch(digestPattern);
      expect(op.checkpoints.filter((name) => name !== "marker-written")).toEqual(["image-built", "image-pushed"]);
      expect(await builder().buildDebianImage(operation("web"), spec)).toEqual(made);
      expect(await builder().buildDebianImage(operation("another owner"), spec)).toEqual(made);
      expect(await builder().readImage(spec.registry, "built/web", digest)).toEqual(made);
    });

    it.each<[string, Partial<DebianImageSpec>]>([
      ["file", { files: { "/etc/motd": "good bye\n" } }],
      ["command", { command: ["--port=81"] }],
      ["variable", { environment: { MODE: "test" } }],
    ])("with another %s is another one, beside the one before", async (_what, more) => {
      const other = await builder().buildDebianImage(operation("web"), specOf(subject(), more));
      expect(other.digest).not.toBe(digest);
      for (const one of [other.digest, digest]) {
        expect((await builder().readImage(subject().registry, "built/web", one))?.digest).toBe(one);
      }
    });

    it("says what an image was made from, without credentials", async () => {
      const { registry, ...spec } = specOf(subject());
      const made = await builder().readMadeFrom(registry, "built/web", digest);
      expect(made).toEqual({ ...spec, inputsHash: await builder().inputsHash(spec) });
      expect(JSON.stringify(made)).not.toContain(registry.password);
    });

    it("reads what is not there as undefined, also where nothing was ever pushed", async () => {
      expect(await builder().readImage(subject().registry, "built/web", absent)).toBeUndefined();
      expect(await builder().readImage(subject().registry, "built/nothing", digest)).toBeUndefined();
    });

    it("uses this machine's credentials where none are given, and shows none that are refused", async () => {
      const { server, ca } = subject().registry;
      const without = { server, ...(ca === undefined ? {} : { ca }) };
      expect((await builder().readImage(without, "built/web", digest))?.digest).toBe(digest);
      const registry = { ...subject().registry, password: refusedPassword };
      await expectNoAccess(builder().readImage(registry, "built/web", digest), registry);
      await expectNoAccess(builder().buildDebianImage(operation("refused"), specOf(subject(), { registry })), registry);
    });
  });
}

export function imageSealerContract(implementation: string, make: MakeImageSubject): void {
  suite(`sealer: ${implementation}`, make, (subject) => {
    const sealer = () => subject().sealer;
    let digest: string;
    const spec = (more: Partial<SealSpec> = {}): SealSpec => ({
      ...{ registry: subject().registry, repository: "sealed/web", digest, ...subject().keys, ...more },
    });
    const read = (known?: Awaited<ReturnType<ImageSealer["seal"]>>, key = subject().keys.sealSigner) =>
      sealer().readSeal(subject().registry, "sealed/web", digest, known, key.certificateFile);

    beforeAll(async () => {
      digest = await build(subject(), "sealed/web", "sealed");
    });

    it("tells keys apart by their certificates", async () => {
      const { keys, others } = subject();
      const identity = await sealer().identify(keys);
      expect(identity).toEqual({
        layerKey: expect.stringMatching(hashPattern),
        sealKeyId: expect.stringMatching(hashPattern),
      });
      expect(await sealer().identify(keys)).toEqual(identity);
      const other = await sealer().identify({ ...keys, sealSigner: others.sealSigner });
      expect(other.layerKey).toBe(identity.layerKey);
      expect(other.sealKeyId).not.toBe(identity.sealKeyId);
      const layerSigner = { ...keys.layerSigner, certificateFile: "/nowhere/layer.crt" };
      await expectWrongField(sealer().identify({ ...keys, layerSigner }), "layerSigner.certificateFile");
    });

    it("refuses a key that cannot be read, by its field, before anything is made", async () => {
      for (const role of ["layerSigner", "sealSigner", "imageSigner"] as const) {
        for (const [field, key] of unreadable(subject().keys[role])) {
          const op = operation("web");
          await expectWrongField(sealer().seal(op, spec({ [role]: key })), `${role}.${field}`);
          expect(op.checkpoints).toEqual([]);
        }
      }
      expect(await read()).toBeUndefined();
    });

    it("shows no seal that is half made, and completes it when it is called again", async () => {
      for (const checkpoint of ["layer-sealed", "image-signed"]) {
        expect((await failureOf(sealer().seal(operation("web", checkpoint), spec()))).name).toBe("AbortError");
        expect(await read(), checkpoint).toBeUndefined();
      }
      expect((await failureOf(sealer().seal(operation("web", "seal-published"), spec()))).name).toBe("AbortError");
      const sealed = await sealer().seal(operation("web"), spec());
      const { registry, keys } = subject();
      expect(sealed).toMatchObject({
        ...{ digest, reference: `${registry.server}/sealed/web@${digest}` },
        ...{ sealDigest: expect.stringMatching(digestPattern), ...(await sealer().identify(keys)) },
      });
      expect(sealed.rootHashes.length).toBeGreaterThan(0);
      for (const rootHash of sealed.rootHashes) expect(rootHash).toMatch(hashPattern);
    });

    it("makes the same seal again, of layers that it has", async () => {
      const sealed = await sealer().seal(operation("web"), spec());
      const again = await sealer().seal(operation("another owner"), spec());
      expect(again).toEqual(sealed);
      expect(again.reusedLayers).toBe(again.rootHashes.length);
      expect(await read(sealed)).toEqual(sealed);
      expect(await read()).toMatchObject({ ...sealed, reusedLayers: 0 });
    });

    it("is found for another key only when the state holds it, and is made anew with that key", async () => {
      const sealed = await sealer().seal(operation("web"), spec());
      const { sealSigner } = subject().others;
      expect(await read(undefined, sealSigner)).toBeUndefined();
      expect(await read(sealed, sealSigner)).toEqual(sealed);
      const renewed = await sealer().seal(operation("web"), spec({ sealSigner }));
      expect(renewed.sealDigest).not.toBe(sealed.sealDigest);
      expect(renewed.rootHashes).toEqual(sealed.rootHashes);
      expect(await read(renewed, sealSigner)).toEqual(renewed);
      // The one of before is still there.
      expect(await read(sealed)).toEqual(sealed);
    });

    it("reads what is not there as undefined", async () => {
      const { registry, keys } = subject();
      const { certificateFile } = keys.sealSigner;
      expect(await sealer().readSeal(registry, "sealed/web", absent, undefined, certificateFile)).toBeUndefined();
      expect(await sealer().readSeal(registry, "sealed/nothing", digest, undefined, certificateFile)).toBeUndefined();
      const unsealed = await build(subject(), "sealed/web", "not sealed");
      expect(await sealer().readSeal(registry, "sealed/web", unsealed, undefined, certificateFile)).toBeUndefined();
    });

    it("shows no credentials that are refused", async () => {
      const registry = { ...subject().registry, password: refusedPassword };
      await expectNoAccess(sealer().seal(operation("refused"), spec({ registry })), registry);
      const { certificateFile } = subject().keys.sealSigner;
      await expectNoAccess(sealer().readSeal(registry, "sealed/web", digest, undefined, certificateFile), registry);
    });
  });
}

export function channelsContract(implementation: string, make: MakeImageSubject): void {
  suite(`channels: ${implementation}`, make, (subject) => {
    const channels = () => subject().channels;
    let images: [string, string, string];
    let count = 0;
    let channel = "";
    let publicKey = "";
    const place = (): ChannelSpec => ({ registry: subject().registry, repository: "channels/web", channel });
    const publish = (digest: string, from?: string, op = operation("channel")) => {
      const { sealSigner, imageSigner } = subject().keys;
      return channels().publish(op, { ...place(), digest, sealSigner, imageSigner }, from);
    };
    const resolve = (key?: string) => channels().resolve(place(), key);
    const seal = (digest: string, more: Partial<SealSpec> = {}) =>
      subject().sealer.seal(operation(`seal ${digest}`), {
        ...{ registry: subject().registry, repository: "channels/web", digest, ...subject().keys, ...more },
      });

    beforeAll(async () => {
      const made: string[] = [];
      for (const content of ["1", "2", "3"]) {
        const digest = await build(subject(), "channels/web", content);
        await seal(digest);
        made.push(digest);
      }
      images = made as typeof images;
      const certificate = await readCertificate("imageSigner", subject().keys.imageSigner);
      publicKey = certificate.publicKey.export({ type: "spki", format: "pem" }).toString();
    });
    beforeEach(() => {
      channel = `channel-${++count}`;
    });

    it("point to nothing until an image is published, then to that one, to the next, and back", async () => {
      const [first, second] = images;
      expect([await resolve(), await resolve(publicKey)]).toEqual([undefined, undefined]);
      for (const digest of [first, first, second, first]) {
        expect(await publish(digest)).toEqual({ digest });
        expect([await resolve(), await resolve(publicKey)]).toEqual([digest, digest]);
      }
    });

    it("are moved once, also after a call that was cancelled half-way", async () => {
      const [first] = images;
      const broken = await failureOf(publish(first, undefined, operation("channel", "channel-moved")));
      expect(broken.name).toBe("AbortError");
      expect(await publish(first)).toEqual({ digest: first });
      const op = operation("channel");
      expect(await publish(first, undefined, op)).toEqual({ digest: first });
      expect(op.checkpoints, "it is there already").toEqual([]);
      expect(await resolve(publicKey)).toBe(first);
    });

    it.each([
      ["seal", /stays: sha256:\w+ has no seal by the key of sealSigner/],
      ["signature", /stays: sha256:\w+ is not signed by the key of imageSigner/],
    ] as const)("stay where they are for an image without a %s", async (lacking, reason) => {
      const [first] = images;
      await publish(first);
      const digest = await build(subject(), "channels/web", `without ${lacking}`);
      await expect(publish(digest)).rejects.toThrow(/has no seal/);
      // What is lacking is there by another key.
      const { sealSigner, imageSigner } = subject().others;
      await seal(digest, lacking === "seal" ? { sealSigner } : { imageSigner });
      await expect(publish(digest)).rejects.toThrow(reason);
      expect(await resolve()).toBe(first);
      // Control: with both they move.
      await seal(digest);
      expect(await publish(digest)).toEqual({ digest });
    });

    it("stay where others have moved them, when they were to be moved from elsewhere", async () => {
      const [first, second, third] = images;
      await publish(first, third);
      await publish(second);
      const op = operation("channel");
      expect(await publish(third, first, op)).toEqual({ digest: second });
      expect(op.lines.join()).toContain(`leads to ${second} and not to ${first} any more`);
      expect(await resolve()).toBe(second);
      expect(await publish(third, second)).toEqual({ digest: third });
    });

    it("are not believed by a reader with the publisher's key when somebody without it has moved them", async () => {
      const [first, second] = images;
      await publish(first);
      await subject().setChannel(place(), second);
      await expect(resolve(publicKey)).rejects.toThrow(/which publicKey has not published into it/);
      // Control: without a key the tag is all that is asked for.
      expect(await resolve()).toBe(second);
    });

    it("refuse a key that cannot be read, by its field", async () => {
      const { sealSigner, imageSigner } = subject().keys;
      const attempt = (more: Partial<ImageSubject["keys"]>) =>
        channels().publish(operation("channel"), { ...place(), digest: images[0], sealSigner, imageSigner, ...more });
      for (const [field, key] of unreadable(imageSigner)) {
        await expectWrongField(attempt({ imageSigner: key }), `imageSigner.${field}`);
      }
      const certificateFile = "/nowhere/seal.crt";
      await expectWrongField(attempt({ sealSigner: { ...sealSigner, certificateFile } }), "sealSigner.certificateFile");
      expect(await resolve()).toBeUndefined();
    });

    it("show no credentials that are refused", async () => {
      const registry = { ...subject().registry, password: refusedPassword };
      await expectNoAccess(channels().resolve({ ...place(), registry }), registry);
      const { sealSigner, imageSigner } = subject().keys;
      const publication = { ...place(), registry, digest: images[0], sealSigner, imageSigner };
      await expectNoAccess(channels().publish(operation("channel"), publication), registry);
    });
  });
}

export function imagePatcherContract(implementation: string, make: MakeImageSubject): void {
  suite(`patcher: ${implementation}`, make, (subject) => {
    const patcher = () => subject().patcher;

    it("returns the digest of a database, and refuses a folder without one by its field", async () => {
      const digest = await patcher().databaseDigest(subject().database);
      expect(digest).toMatch(digestPattern);
      expect(await patcher().databaseDigest(subject().database)).toBe(digest);
      await expectWrongField(patcher().databaseDigest("/nowhere"), "database");
    });

    it("reads what is not there as undefined, and an image that it has not made without how it was made", async () => {
      const { registry } = subject();
      expect(await patcher().readPatched(registry, "patched/web", absent, true)).toBeUndefined();
      const digest = await build(subject(), "patched/web", "original");
      const found = { digest, reference: `${registry.server}/patched/web@${digest}` };
      expect(await patcher().readPatched(registry, "patched/web", digest, true)).toEqual(found);
      expect(await patcher().readPatched(registry, "patched/nothing", digest, true)).toBeUndefined();
      const refused = { ...registry, password: refusedPassword };
      await expectNoAccess(patcher().readPatched(refused, "patched/web", digest, true), refused);
    });
  });
}

export interface PatchSubject {
  patcher: ImagePatcher;
  /** An image of which some packages have fixes, in a registry of this machine, and a database that knows them. */
  spec: PatchSpec;
  /** Removes what tests have made. */
  dispose(): Promise<void>;
}

/**
 * One patch from its beginning to its end; a run that is cancelled before it costs a scan, another one after it two.
 */
export function patchContract(implementation: string, make: () => Promise<PatchSubject>): void {
  describe(`a patch: ${implementation}`, () => {
    let subject: PatchSubject;
    beforeAll(async () => {
      subject = await make();
    });
    afterAll(async () => subject?.dispose());

    it("is refused for what is wrong by its field, before anything is scanned", async () => {
      const { patcher, spec } = subject;
      for (const [field, key] of unreadable(spec.imageSigner)) {
        const op = operation("patch");
        await expectWrongField(patcher.patch(op, { ...spec, imageSigner: key }), `imageSigner.${field}`);
        expect(op.checkpoints).toEqual([]);
      }
      await expectWrongField(patcher.patch(operation("patch"), { ...spec, database: "/nowhere" }), "database");
      const registry = { ...spec.registry, password: refusedPassword };
      await expectNoAccess(patcher.patch(operation("patch"), { ...spec, registry }), registry);
    });

    it("is made once from the original, also after a call that was cancelled half-way, and read back", async () => {
      const { patcher, spec } = subject;
      const { registry, repository, digest: original } = spec;
      const broken = await failureOf(patcher.patch(operation("patch", "image-scanned"), spec));
      expect(broken.name).toBe("AbortError");
      const op = operation("patch");
      const patched = await patcher.patch(op, spec);
      const { digest } = patched;
      expect(patched).toMatchObject({
        ...{ reference: `${registry.server}/${repository}@${digest}`, fixableAfter: 0, remaining: [] },
        ...{ vexReference: expect.stringMatching(/@sha256:[0-9a-f]{64}$/) },
        databaseDigest: await patcher.databaseDigest(spec.database),
      });
      expect(digest).not.toBe(original);
      expect(patched.fixableBefore).toBeGreaterThan(0);
      expect(Date.parse(patched.scannedAt)).not.toBeNaN();
      const steps = op.checkpoints.filter((name) => name.startsWith("image-"));
      expect(steps).toEqual(["image-scanned", "image-patched", "image-pushed"]);

      const found = { digest, reference: patched.reference };
      expect(await patcher.readPatched(registry, repository, digest, true)).toEqual(found);
      const again = await patcher.patch(operation("patch"), spec, digest);
      // Each scan is attested, with its own time.
      const { scannedAt, vexReference } = again;
      expect(again).toEqual({ ...patched, scannedAt, vexReference });
      const failure = await failureOf(patcher.patch(operation("patch"), { ...spec, digest }));
      expect(failure.message).toContain(`is a patched image of ${original}; give the original`);
    });
  });
}
