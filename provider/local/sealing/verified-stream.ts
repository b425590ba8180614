/** A layer's tar as a stream that ends in an error unless the layer and the tar have the expected digests. */
import { createHash } from "node:crypto";
import { pipeline, Transform, type Readable } from "node:stream";
import { createGunzip, createZstdDecompress } from "node:zlib";

/** Larger pieces than the default of 16 KiB: fewer turns for the same bytes. */
const chunkSize = 1024 * 1024;

type Step = Transform | ((source: AsyncIterable<Buffer>) => AsyncIterable<Buffer>);

const decompressors: [RegExp, () => Step | undefined][] = [
  [/\.tar$/, () => undefined],
  [/\.tar[+.]gzip$/, () => createGunzip({ chunkSize })],
  [/\.tar[+.]zstd$/, () => decompressZstd],
];

/**
 * Decompresses all frames of a zstd stream, also those that are to be skipped. Node.js stops where one ends within a
 * chunk. https://www.rfc-editor.org/rfc/rfc8878#section-3.1
 */
async function* decompressZstd(source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
  const chunks = source[Symbol.asyncIterator]();
  let rest: Buffer | undefined;
  const next = async (): Promise<Buffer | undefined> => {
    const given = rest;
    rest = undefined;
    if (given !== undefined) return given;
    const result: IteratorResult<Buffer, unknown> = await chunks.next();
    return result.done ? undefined : result.value;
  };
  try {
    for (let first = await next(); first !== undefined; first = await next()) {
      const decompressor = createZstdDecompress({ chunkSize });
      // The callback of a write need not come when the frame ended within its chunk, or the decompressor failed.
      const ended = new Promise<void>((resolve) => {
        for (const event of ["end", "close", "error"]) decompressor.once(event, () => resolve());
      });
      const fed = (async () => {
        let fedBytes = 0;
        for (let chunk: Buffer | undefined = first; chunk !== undefined; chunk = await next()) {
          await Promise.race([new Promise((resolve) => decompressor.write(chunk, resolve)), ended]);
          const taken = decompressor.bytesWritten - fedBytes;
          if (taken < chunk.length) {
            rest = chunk.subarray(taken);
            return;
          }
          fedBytes += chunk.length;
        }
        decompressor.end();
      })();
      fed.catch((error: Error) => decompressor.destroy(error));
      yield* decompressor as AsyncIterable<Buffer>;
      await fed;
    }
  } finally {
    await chunks.return?.();
  }
}

/**
 * Passes its input on and fails at the end when the digest is not the expected one. A Transform would cost twice as
 * much as the hash.
 */
function meter(digest: string, what: string) {
  return async function* (source: AsyncIterable<Buffer>): AsyncGenerator<Buffer> {
    const hash = createHash("sha256");
    for await (const chunk of source) {
      hash.update(chunk);
      yield chunk;
    }
    const found = `sha256:${hash.digest("hex")}`;
    if (found !== digest) throw new Error(`${what} ${digest}: what was read has the digest ${found}`);
  };
}

/**
 * @param layer as in the image's manifest, with the digest of its tar from the image's configuration.
 * @throws when the layer is of a media type that is not known, e.g. an encrypted one.
 */
export function verifiedTar(
  layer: { mediaType: string; digest: string; diffId: string },
  compressed: Readable,
): AsyncIterable<Buffer> {
  const known = decompressors.find(([pattern]) => pattern.test(layer.mediaType));
  if (!known) {
    compressed.destroy();
    throw new Error(
      `layer ${layer.digest}: its media type ${layer.mediaType} cannot be sealed; tar, gzip and zstd layers can`,
    );
  }
  const decompressor = known[1]();
  const steps = [
    meter(layer.digest, "layer"),
    ...(decompressor ? [decompressor] : []),
    meter(layer.diffId, "layer's tar"),
  ];
  // The last stream carries the error of any. The types know no generators in a list of steps.
  return pipeline([compressed, ...(steps as Transform[])], () => undefined) as unknown as Transform;
}
