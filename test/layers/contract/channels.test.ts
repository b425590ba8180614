/** Channels on a real registry, beyond their contract (image-services.ts): broken off, set back, and imported. */
import { cp, mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, beforeEach, describe, expect, it } from "vitest";
import { LocalChannels } from "../../../provider/local/channels/local-channels.js";
import { testOperation } from "../../../provider/system/testing.js";
import { LocalPatcher } from "../../../provider/local/patching/local-patcher.js";
import { baseDigest, databaseNote } from "../../../provider/local/patching/patch-image.js";
import { openVex, openVexType } from "../../../provider/local/patching/vex.js";
import { digestOf } from "../../../provider/local/registry/digest.js";
import { imageManifestType } from "../../../provider/local/registry/media-types.js";
import { Bench, layerOf, makeKey, putImage, tarOf } from "../../../provider/local/sealing/testing/bench.js";
import { RegistryProxy } from "../../../provider/local/sealing/testing/proxy.js";
import { attestImage } from "../../../provider/local/sealing/cosign.js";
import { openSigner, readCertificate } from "../../../provider/local/sealing/signer.js";
import { sealTools } from "../../../provider/local/sealing/tools.js";
import type { RegistryService, SigningKey } from "../../../provider/backends/index.js";
import { defaultCacheDirectory } from "../../../shared/directories.js";

const channel = "stable";
const tag = "palisade-channel-stable";

let bench: Bench;
let proxy: RegistryProxy;
let otherSigner: SigningKey;
let publicKey: string;
let repository = "";
let count = 0;
/** Sealed and signed, in the order in which they were made. */
let images: [string, string];
let channels: LocalChannels;

beforeAll(async () => {
  bench = await Bench.start(await mkdtemp(join(tmpdir(), "palisade-channels-")));
  proxy = await RegistryProxy.start(bench.access);
  otherSigner = await makeKey(bench.folder, "other", "ec");
  const certificate = await readCertificate("imageSigner", bench.keys.imageSigner);
  publicKey = certificate.publicKey.export({ type: "spki", format: "pem" }).toString();
});
afterAll(async () => {
  await proxy?.stop();
  await bench?.stop();
  if (bench) await rm(bench.folder, { recursive: true, force: true });
});

/** A machine of its own: what it has seen of channels is not what others have. */
const machine = (name: string) =>
  new LocalChannels(join(bench.folder, "machines", name), defaultCacheDirectory(), async () => undefined);

const image = (content: string) =>
  within(async (one) => putImage(one, [await layerOf(await tarOf({ "app/version": content }))]));

async function within<T>(work: (one: ReturnType<Bench["repository"]>) => Promise<T>): Promise<T> {
  const one = bench.repository(repository);
  try {
    return await work(one);
  } finally {
    one.close();
  }
}

const target = () => within(async (one) => (await one.manifest(tag))?.digest);

/** What a client that may write to the registry can do without any key. */
const setTag = (digest: string) =>
  within(async (one) => one.putManifest(tag, (await one.manifest(digest))!.bytes, imageManifestType));

const publication = (digest: string, more = {}) => ({
  ...{ registry: bench.access, repository, channel, digest },
  ...{ sealSigner: bench.keys.sealSigner, imageSigner: bench.keys.imageSigner, ...more },
});
const publish = (digest: string, from?: string, by = channels) =>
  by.publish(testOperation("channel"), publication(digest), from);
const resolve = (key?: string, by = channels) => by.resolve({ registry: bench.access, repository, channel }, key);

beforeEach(async () => {
  repository = `channels/${++count}`;
  channels = machine(String(count));
  const sealing = await bench.machine("channels");
  const sealed = async (content: string) => {
    const digest = await image(content);
    await bench.seal(sealing, repository, digest);
    return digest;
  };
  images = [await sealed("1"), await sealed("2")];
});

describe("publishing", () => {
  it("does nothing when the channel is there already", async () => {
    const [first] = images;
    const records = () =>
      within(async (one) => (await one.listedReferrers(first)) ?? (await one.manifest(`sha256-${first.slice(7)}`)));
    await publish(first);
    const before = JSON.stringify(await records());
    await publish(first);
    expect(JSON.stringify(await records())).toBe(before);
  });

  it("leaves the channel as it is when the registry breaks off at any changing request, and completes when repeated", async () => {
    const through = { registry: proxy.access };
    const sealing = await bench.machine("channels");
    const move = (digest: string) => channels.publish(testOperation("channel"), publication(digest, through));
    let present: string | undefined;
    let wasBroken = true;
    let at = 0;
    while (wasBroken) {
      const next = await image(`broken off ${++at}`);
      // Signed and sealed for the proxy's address, which is part of what is signed.
      await bench.seal(sealing, repository, next, through);
      let requests = 0;
      proxy.behaviour = {
        breakOff: (method) => {
          if (["PUT", "POST"].includes(method)) requests++;
          return requests >= at ? "before" : undefined;
        },
      };
      const failure = await move(next).then(
        () => undefined,
        (error: Error) => error,
      );
      proxy.behaviour = {};
      wasBroken = failure !== undefined;
      if (wasBroken) {
        expect(failure!.message).toMatch(/does not answer/);
        expect(await target(), `request ${at}`).toBe(present);
        await move(next);
      }
      expect(await target()).toBe(next);
      present = next;
    }
    // Blobs, the publication, the list of what refers to the image, the tag.
    expect(at).toBeGreaterThan(4);
  });
});

describe("a reader with the publisher's key", () => {
  it("does not go back to what was published before", async () => {
    const [first, second] = images;
    await publish(first);
    await publish(second);
    await setTag(first);
    await expect(resolve(publicKey)).rejects.toThrow(/the channel was set back by somebody without the key/);
    // Control: a machine that has never seen the channel cannot know.
    expect(await resolve(publicKey, machine("new"))).toBe(first);
    // An owner of the key can go back.
    await publish(first);
    expect(await resolve(publicKey)).toBe(first);
  });

  it("takes no publication of another channel, repository or key", async () => {
    const [first] = images;
    await channels.publish(testOperation("channel"), publication(first, { channel: "testing" }));
    await setTag(first);
    await expect(resolve(publicKey)).rejects.toThrow(/has not published into it/);
    await publish(first);
    expect(await resolve(publicKey)).toBe(first);
    const other = (await readCertificate("imageSigner", otherSigner)).publicKey;
    await expect(resolve(other.export({ type: "spki", format: "pem" }).toString())).rejects.toThrow(/another key/);
  });
});

describe("an import of a patched image", () => {
  /** An image that says and attests that it is a patch of another one, as PatchedImage makes it. */
  const patchOf = (original: string) =>
    within(async (one) => {
      const plain = JSON.parse((await one.manifest(original))!.bytes.toString()) as object;
      const bytes = Buffer.from(JSON.stringify({ ...plain, annotations: { [baseDigest]: original } }));
      const digest = digestOf(bytes);
      await one.putManifest(digest, bytes, imageManifestType);
      const signer = await openSigner("imageSigner", bench.keys.imageSigner, await sealTools(defaultCacheDirectory()));
      const nothing = { family: "debian", version: "13", packages: [], vulnerabilities: [] };
      const document = openVex(nothing, nothing, repository, digest, new Date(0).toISOString());
      await attestImage(one, digest, openVexType, document, signer, { [databaseNote]: "database" });
      await bench.seal(await bench.machine("channels"), repository, digest);
      return digest;
    });

  /** By the keys of an operator, who is the one who has published. */
  async function made(digest: string) {
    const home = join(bench.folder, "operator");
    await mkdir(join(home, "keys/images"), { recursive: true });
    const { certificateFile } = bench.keys.imageSigner;
    await cp(certificateFile, join(home, "keys/images/signer.crt"));
    const registries = { findRegistry: async () => undefined } as unknown as RegistryService;
    const before = process.env["PALISADE_HOME"];
    process.env["PALISADE_HOME"] = home;
    try {
      const patcher = new LocalPatcher(join(bench.folder, "state"), defaultCacheDirectory(), registries);
      return (await patcher.readPatched(bench.access, repository, digest, false))?.made;
    } finally {
      if (before === undefined) delete process.env["PALISADE_HOME"];
      else process.env["PALISADE_HOME"] = before;
    }
  }

  it("finds the channel into which the operator published it last, and where that points now", async () => {
    const [original, other] = images;
    const digest = await patchOf(original);
    const place = { original, observed: { digest, databaseDigest: "database" } };
    expect(await made(digest)).toMatchObject(place);
    expect((await made(digest))!.channel).toBeUndefined();

    await channels.publish(testOperation("channel"), publication(digest, { channel: "testing" }));
    await publish(digest);
    expect((await made(digest))!.channel).toMatchObject({ name: channel, digest });
    await publish(other);
    expect((await made(digest))!.channel).toMatchObject({ name: channel, digest: other });
  });

  it("does not believe a channel that somebody else has published", async () => {
    const digest = await patchOf(images[0]);
    const sealing = await bench.machine("channels");
    await bench.seal(sealing, repository, digest, { imageSigner: otherSigner });
    await channels.publish(testOperation("channel"), publication(digest, { imageSigner: otherSigner }));
    expect(await target()).toBe(digest);
    expect((await made(digest))!.channel).toBeUndefined();
  });
});
