/** Builds container images from Debian packages and pushes them. */
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import type { DebianImageObserved, DebianImageSpec, ImageBuilder, Operation, RegistryAccess } from "../backends.js";
import { within } from "../ownership/time.js";
import { manifestDigest } from "../registry/client.js";
import { fileLayer } from "./file-layer.js";
import { writeLayout } from "./oci-layout.js";
import { packageLayer, packageLayerHash } from "./package-layer.js";
import { push } from "./push.js";

export class DebianImageBuilder implements ImageBuilder {
  constructor(private readonly cacheDirectory: string) {}

  async inputsHash(spec: DebianImageSpec): Promise<string> {
    const { entrypoint, command, environment, workingDirectory, files } = spec;
    const sorted = (map: Record<string, string>) => Object.entries(map).sort(([a], [b]) => (a < b ? -1 : 1));
    const inputs = [
      await packageLayerHash(spec),
      entrypoint,
      command,
      sorted(environment),
      workingDirectory,
      sorted(files),
    ];
    return createHash("sha256").update(JSON.stringify(inputs)).digest("hex");
  }

  async buildDebianImage(op: Operation, spec: DebianImageSpec): Promise<DebianImageObserved> {
    return within(op, spec.repository, async (signal) => {
      const layers = [await packageLayer(spec, this.cacheDirectory, (message) => op.status(message), signal)];
      const layouts = join(this.cacheDirectory, "debian-images");
      await mkdir(layouts, { recursive: true, mode: 0o700 });
      const layout = await mkdtemp(join(layouts, ".pushing-"));
      try {
        if (Object.keys(spec.files).length > 0) layers.push(await fileLayer(spec.files, join(layout, "files.tar.gz")));
        const digest = await writeLayout(layout, layers, spec, spec.tag);
        await op.checkpoint("image-built");
        if ((await manifestDigest(spec.registry, spec.repository, spec.tag, signal)) !== digest) {
          op.status(`pushing to ${spec.registry.server}/${spec.repository}`);
          await push(layout, spec.tag, spec.registry, spec.repository, signal);
        }
        const pushed = await manifestDigest(spec.registry, spec.repository, digest, signal);
        if (pushed !== digest) {
          throw new Error(
            `registry: ${spec.registry.server} has ${pushed ?? "nothing"} where ${digest} was pushed to ${spec.repository}`,
          );
        }
        await op.checkpoint("image-pushed");
        return { digest, reference: `${spec.registry.server}/${spec.repository}@${digest}` };
      } finally {
        await rm(layout, { recursive: true, force: true });
      }
    });
  }

  async readImage(
    registry: RegistryAccess,
    repository: string,
    digest: string,
  ): Promise<DebianImageObserved | undefined> {
    const found = await manifestDigest(registry, repository, digest);
    return found === undefined ? undefined : { digest, reference: `${registry.server}/${repository}@${digest}` };
  }
}
