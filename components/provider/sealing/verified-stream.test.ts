import { Readable } from "node:stream";
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
