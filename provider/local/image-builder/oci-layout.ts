/** OCI image layouts: https://github.com/opencontainers/image-spec/blob/main/image-layout.md */
import { createHash } from "node:crypto";
import { copyFile, link, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";

/** The time of everything in an image, seconds since 1970: 2026-01-01. */
export const epoch = 1767225600;

export interface Layer {
  /** gzip-compressed tar. */
  file: string;
  /** Digest of the tar. */
  diffId: string;
  /** Digest of the file. */
  digest: string;
  /** Of the file, bytes. */
  size: number;
}

export interface ImageConfiguration {
  entrypoint: string[];
  command: string[];
  environment: Record<string, string>;
  workingDirectory: string;
  /** Facts about the image, in reverse domain notation. */
  labels: Record<string, string>;
}

const architectures: Record<string, string> = { x64: "amd64", arm64: "arm64" };
const defaultPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

interface Blob {
  digest: string;
  size: number;
}

async function writeBlob(blobs: string, value: unknown): Promise<Blob> {
  const content = Buffer.from(JSON.stringify(value));
  const hex = createHash("sha256").update(content).digest("hex");
  await writeFile(join(blobs, hex), content);
  return { digest: `sha256:${hex}`, size: content.length };
}

/**
 * Writes a layout with one image.
 *
 * @returns digest of the image's manifest.
 */
export async function writeLayout(
  directory: string,
  layers: Layer[],
  configuration: ImageConfiguration,
  tag: string,
): Promise<string> {
  const blobs = join(directory, "blobs", "sha256");
  await mkdir(blobs, { recursive: true, mode: 0o700 });
  for (const layer of layers) {
    const blob = join(blobs, layer.digest.slice("sha256:".length));
    await link(layer.file, blob).catch(() => copyFile(layer.file, blob));
  }
  const created = new Date(epoch * 1000).toISOString();
  const environment = { PATH: defaultPath, ...configuration.environment };
  const config = await writeBlob(blobs, {
    created,
    architecture: architectures[process.arch] ?? process.arch,
    os: "linux",
    config: {
      Env: Object.keys(environment)
        .sort()
        .map((name) => `${name}=${environment[name as keyof typeof environment]}`),
      ...(configuration.entrypoint.length ? { Entrypoint: configuration.entrypoint } : {}),
      ...(configuration.command.length ? { Cmd: configuration.command } : {}),
      WorkingDir: configuration.workingDirectory,
      ...(Object.keys(configuration.labels).length ? { Labels: configuration.labels } : {}),
    },
    rootfs: { type: "layers", diff_ids: layers.map((layer) => layer.diffId) },
    history: layers.map(() => ({ created, created_by: "palisade" })),
  });
  const manifestType = "application/vnd.oci.image.manifest.v1+json";
  const manifest = await writeBlob(blobs, {
    schemaVersion: 2,
    mediaType: manifestType,
    config: { mediaType: "application/vnd.oci.image.config.v1+json", ...config },
    layers: layers.map(({ digest, size }) => ({
      mediaType: "application/vnd.oci.image.layer.v1.tar+gzip",
      digest,
      size,
    })),
  });
  await writeFile(join(directory, "oci-layout"), JSON.stringify({ imageLayoutVersion: "1.0.0" }));
  const entry = { mediaType: manifestType, ...manifest, annotations: { "org.opencontainers.image.ref.name": tag } };
  await writeFile(join(directory, "index.json"), JSON.stringify({ schemaVersion: 2, manifests: [entry] }));
  return manifest.digest;
}
