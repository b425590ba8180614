/** This machine's builder, sealer, channels and patcher under their contracts, on a real registry. */
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll } from "vitest";
import { createLocalBackends } from "../../../provider/local/index.js";
import { packageLayerHash } from "../../../provider/local/image-builder/package-layer.js";
import { digestOf } from "../../../provider/local/registry/digest.js";
import { imageManifestType } from "../../../provider/local/registry/media-types.js";
import { Bench, layerOf, makeKey, tarOf } from "../../../provider/local/sealing/testing/bench.js";
import {
  channelsContract,
  imageBuilderContract,
  imagePatcherContract,
  imageSealerContract,
  type ImageSubject,
} from "./image-services.js";

const packages = { suite: "trixie", packages: ["base-files"] };

let bench: Bench;
let subject: ImageSubject;

/**
 * A layer of packages that was built before: what mmdebstrap makes of packages is not what this is about, and takes
 * minutes.
 */
async function keepPackageLayer(cache: string): Promise<void> {
  const { content, diffId } = await layerOf(await tarOf({ "etc/": "", "etc/debian_version": "13.1\n" }));
  const folder = path.join(cache, "debian-layers", await packageLayerHash(packages));
  await mkdir(folder, { recursive: true });
  await writeFile(path.join(folder, "layer.tar.gz"), content);
  const layer = { diffId, digest: digestOf(content), size: content.length };
  await writeFile(path.join(folder, "layer.json"), JSON.stringify(layer));
}

beforeAll(async () => {
  bench = await Bench.start(await mkdtemp(path.join(tmpdir(), "palisade-image-services-")));
  const cache = await bench.cache("contract");
  await keepPackageLayer(cache);
  const state = path.join(bench.folder, "state");
  const backends = createLocalBackends({ stateDirectory: state, cacheDirectory: cache });
  const database = path.join(bench.folder, "database");
  await mkdir(path.join(database, "db"), { recursive: true });
  await writeFile(path.join(database, "db/metadata.json"), "{}");
  subject = {
    ...{ images: backends.images, sealer: backends.sealer, channels: backends.channels, patcher: backends.patcher },
    ...{ registry: bench.access, keys: bench.keys, packages, database },
    others: {
      sealSigner: await makeKey(bench.folder, "other-seal", "ec"),
      imageSigner: await makeKey(bench.folder, "other-signer", "ec"),
    },
    async setChannel({ repository: name, channel }, digest) {
      const repository = bench.repository(name);
      try {
        const { bytes } = (await repository.manifest(digest))!;
        await repository.putManifest(`palisade-channel-${channel}`, bytes, imageManifestType);
      } finally {
        repository.close();
      }
    },
  };
});
afterAll(async () => {
  await bench?.stop();
  if (bench) await rm(bench.folder, { recursive: true, force: true });
});

/** One registry and one machine for all: each suite has repositories of its own. */
const make = async () => ({ subject, dispose: async () => undefined });

imageBuilderContract("this machine's", make);
imageSealerContract("this machine's", make);
channelsContract("this machine's", make);
imagePatcherContract("this machine's", make);
