import { Readable } from "node:stream";
import { zstdCompressSync } from "node:zlib";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { digestOf } from "../registry/digest.js";
import { layerOf } from "./testing/bench.js";
import { verifiedTar } from "./verified-stream.js";

async function read(stream: AsyncIterable<Buffer>): Promise<Buffer> {
  const chunks: Buffer[] = [];
  for await (const chunk of stream) chunks.push(chunk);
  return Buffer.concat(chunks);
}
const other = `sha256:${"0".repeat(64)}`;

describe("a layer's tar", () => {
  it.each(["none", "gzip", "zstd"] as const)("comes out of a layer compressed by %s", async (compression) => {
    await fc.assert(
      fc.asyncProperty(fc.uint8Array({ maxLength: 100_000 }), async (bytes) => {
        const tar = Buffer.from(bytes);
        const { content, ...layer } = await layerOf(tar, compression);
        const described = { ...layer, digest: digestOf(content) };
        expect(await read(verifiedTar(described, Readable.from([content])))).toEqual(tar);
      }),
      { numRuns: 20 },
    );
  });

  // pzstd, zstd:chunked and others write many frames, and some that are to be skipped.
  it("comes out of all frames of a zstd layer, wherever its pieces end", async () => {
    const skipped = Buffer.from("502a4d180400000001020304", "hex");
    /** Bytes before compression; undefined is a frame that is to be skipped. */
    const frame = fc.constantFrom(undefined, 0, 1, 1000, 2_500_000);
    await fc.assert(
      fc.asyncProperty(fc.array(frame, { maxLength: 6 }), fc.integer({ min: 1, max: 400 }), async (frames, piece) => {
        const whole = frames.map((size) => (size === undefined ? undefined : Buffer.alloc(size, "frame ")));
        const tar = Buffer.concat(whole.filter((one) => one !== undefined));
        const content = Buffer.concat(whole.map((one) => (one === undefined ? skipped : zstdCompressSync(one))));
        const pieces: Buffer[] = [];
        for (let at = 0; at < content.length; at += piece) pieces.push(content.subarray(at, at + piece));
        const layer = { mediaType: "application/vnd.oci.image.layer.v1.tar+zstd", diffId: digestOf(tar) };
        const described = { ...layer, digest: digestOf(content) };
        expect((await read(verifiedTar(described, Readable.from(pieces)))).equals(tar)).toBe(true);
      }),
      { numRuns: 40 },
    );
  });

  it.each([
    ["cut off in its second frame", (frame: Buffer) => Buffer.concat([frame, frame.subarray(0, frame.length - 3)])],
    ["followed by what is no frame", (frame: Buffer) => Buffer.concat([frame, Buffer.from("no frame at all")])],
  ])("ends in an error when a zstd layer is %s", async (_what, spoil) => {
    const tar = Buffer.from("tar".repeat(1000));
    const content = spoil(zstdCompressSync(tar));
    const diffId = digestOf(Buffer.concat([tar, tar]));
    const layer = { mediaType: "application/vnd.oci.image.layer.v1.tar+zstd", digest: digestOf(content), diffId };
    await expect(read(verifiedTar(layer, Readable.from([content])))).rejects.toThrow();
  });

  it("ends with the error of where it comes from", async () => {
    const frame = zstdCompressSync(Buffer.alloc(1000));
    const broken = async function* () {
      yield frame;
      throw new Error("the registry is gone");
    };
    const layer = { mediaType: "application/vnd.oci.image.layer.v1.tar+zstd", digest: other, diffId: other };
    await expect(read(verifiedTar(layer, Readable.from(broken())))).rejects.toThrow("the registry is gone");
  });

  it.each(["none", "gzip", "zstd"] as const)(
    "ends in an error that names the layer when a digest is wrong (%s)",
    async (compression) => {
      const { content, ...layer } = await layerOf(Buffer.from("tar"), compression);
      const digest = digestOf(content);
      const end = (change: object) => read(verifiedTar({ ...layer, digest, ...change }, Readable.from([content])));
      await expect(end({ digest: other })).rejects.toThrow(`layer ${other}: what was read has the digest ${digest}`);
      await expect(end({ diffId: other })).rejects.toThrow(`layer's tar ${other}: what was read has the digest`);
    },
  );

  it("ends in an error when the layer is cut off", async () => {
    const { content, ...layer } = await layerOf(Buffer.alloc(100_000, "tar"));
    const half = Readable.from([content.subarray(0, content.length / 2)]);
    await expect(read(verifiedTar({ ...layer, digest: digestOf(content) }, half))).rejects.toThrow();
  });

  it("is not read from media types that are not known", () => {
    const layer = { mediaType: "application/vnd.oci.image.layer.v1.tar+gzip+encrypted", digest: other, diffId: other };
    expect(() => verifiedTar(layer, Readable.from([]))).toThrow(
      /layer sha256:0+: its media type .*encrypted cannot be/,
    );
  });
});
