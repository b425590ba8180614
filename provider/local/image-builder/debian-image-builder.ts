/** Builds container images from Debian packages and pushes them. */
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { join } from "node:path";
import * as v from "valibot";
import { decode, object } from "../../../shared/decode.js";
import type {
  DebianImageObserved,
  DebianImageSpec,
  ImageBuilder,
  MadeFrom,
  Operation,
  RegistryAccess,
  RegistryService,
} from "../../backends/index.js";
import { within } from "../../system/time.js";
import { imageLabels, manifestDigest } from "../registry/client.js";
import { withLocalCredentials } from "../registry/local-access.js";
import { aptSourcesFor } from "./apt-sources.js";
import { fileLayer } from "./file-layer.js";
import { writeLayout } from "./oci-layout.js";
import { packageLayer, packageLayerHash } from "./package-layer.js";
import { push } from "./push.js";

/** Label with what the image was made from, as JSON. */
const madeFromLabel = "org.palisade.made-from";

/**
 * Settings that let an image be updated: this machine's package sources of the suite, and that the user's files are
 * kept.
 */
async function sourceFiles({ suite, packageSources }: DebianImageSpec): Promise<Record<string, string>> {
  if (!packageSources) return {};
  return {
    "/etc/apt/sources.list.d/debian.sources": await aptSourcesFor(suite),
    // An update finds changed configuration files, and cannot ask about them.
    "/etc/apt/apt.conf.d/50palisade": 'DPkg::Options { "--force-confdef"; "--force-confold"; };\n',
  };
}

export class DebianImageBuilder implements ImageBuilder {
  constructor(
    private readonly cacheDirectory: string,
    private readonly findRegistry: RegistryService["findRegistry"],
  ) {}

  async inputsHash(spec: DebianImageSpec): Promise<string> {
    const { entrypoint, command, environment, workingDirectory, files } = spec;
    const sorted = (map: Record<string, string>) => Object.entries(map).sort(([a], [b]) => (a < b ? -1 : 1));
    const inputs = [
      await packageLayerHash(spec),
      entrypoint,
      command,
      sorted(environment),
      workingDirectory,
      sorted({ ...(await sourceFiles(spec)), ...files }),
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
        const files = { ...(await sourceFiles(spec)), ...spec.files };
        if (Object.keys(files).length > 0) layers.push(await fileLayer(files, join(layout, "files.tar.gz")));
        const labels = { [madeFromLabel]: await this.madeFrom(spec) };
        const digest = await writeLayout(layout, layers, { ...spec, labels }, spec.tag);
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
    const found = await manifestDigest(await withLocalCredentials(registry, this.findRegistry), repository, digest);
    return found === undefined ? undefined : { digest, reference: `${registry.server}/${repository}@${digest}` };
  }

  async readMadeFrom(registry: RegistryAccess, repository: string, digest: string): Promise<MadeFrom | undefined> {
    const labels = await imageLabels(await withLocalCredentials(registry, this.findRegistry), repository, digest);
    const recorded = labels[madeFromLabel];
    if (recorded === undefined) return undefined;
    const place = `${registry.server}/${repository}@${digest}: label ${madeFromLabel}`;
    return decode(object({ inputsHash: v.string() }), recorded, place) as unknown as MadeFrom;
  }

  private async madeFrom(spec: DebianImageSpec): Promise<string> {
    const { registry: _server, ...content } = spec;
    const recorded: MadeFrom = { ...content, inputsHash: await this.inputsHash(spec) };
    return JSON.stringify(Object.fromEntries(Object.entries(recorded).sort(([a], [b]) => (a < b ? -1 : 1))));
  }
}
