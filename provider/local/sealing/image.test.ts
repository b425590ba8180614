import { readFileSync } from "node:fs";
import { join } from "node:path";
import { Readable } from "node:stream";
import { describe, expect, it } from "vitest";
import { packageRoot } from "../../../shared/directories.js";
import { digestOf } from "../registry/digest.js";
import { imageManifestType } from "../registry/media-types.js";
import { architecture, readImage, type ImageSource } from "./image.js";

/** Hosts are tested with the same table: hosts/seal/seal_test.go, hosts/agent/internal/images/refusal_test.go. */
const counts = JSON.parse(readFileSync(join(packageRoot(), "hosts/seal/testdata/layer-counts.json"), "utf8")) as {
  layers: number;
  accepted: boolean;
}[];

describe("an image", () => {
  it.each(counts)("of $layers layers is accepted: $accepted", async ({ layers, accepted }) => {
    const digest = digestOf(Buffer.from("layer"));
    const config = Buffer.from(
      JSON.stringify({
        os: "linux",
        architecture,
        rootfs: { type: "layers", diff_ids: Array<string>(layers).fill(digest) },
      }),
    );
    const manifest = Buffer.from(
      JSON.stringify({
        schemaVersion: 2,
        mediaType: imageManifestType,
        config: {
          mediaType: "application/vnd.oci.image.config.v1+json",
          digest: digestOf(config),
          size: config.length,
        },
        layers: Array.from({ length: layers }, () => ({
          ...{ mediaType: "application/vnd.oci.image.layer.v1.tar", digest, size: 5 },
        })),
      }),
    );
    let reads = 0;
    const source: ImageSource = {
      name: "team/app",
      manifest: async (wanted) => ({ bytes: manifest, digest: wanted, mediaType: imageManifestType }),
      blob: async () => (reads++, config),
      openBlob: async () => Readable.from([]),
    };
    const image = readImage(source, digestOf(manifest));
    if (accepted) expect((await image).layers).toHaveLength(layers);
    else {
      await expect(image).rejects.toThrow(`in team/app has ${layers} layers, expected 1 to 127`);
      expect(reads).toBe(0);
    }
  });
});
