/**
 * Host images: built here, at most once per set of inputs, and kept in this machine's store. Builds stay in the cache,
 * `<cache>/host-images/<hash>/`, by links; a build that was not requested for 30 days and is in no store is removed
 * when the next image is built.
 */
import { mkdir, mkdtemp, readdir, rename, rm, utimes } from "node:fs/promises";
import { basename, dirname, join } from "node:path";
import type { HostImageBuildSpec, HostImageObserved, HostImageStore, Operation } from "../../backends/index.js";
import { keyPair } from "../../../shared/directories.js";
import { withLock } from "../../system/lock.js";
import { within } from "../../system/time.js";
import { requirePrograms } from "../../system/programs.js";
import { sealArchiveIntoStore } from "../sealing/host-store.js";
import { runBuildScript } from "./build-script.js";
import { buildPaths, hostImageInputsHash } from "./inputs.js";
import {
  claimImage,
  describe,
  digestOfFile,
  noteOrigin,
  observed,
  readImage,
  releaseClaim,
  removeImage,
  removeUnusedBuilds,
  storeImage,
  unclaimedImages,
} from "./store.js";

export class LocalHostImages implements HostImageStore {
  constructor(
    private readonly stateDirectory: string,
    private readonly cacheDirectory: string,
    /** Whether a machine of this computer boots from an image. */
    private readonly isUsed: (digest: string) => Promise<boolean>,
  ) {}

  async inputsHash(spec: HostImageBuildSpec): Promise<string> {
    return hostImageInputsHash(spec);
  }

  async build(op: Operation, spec: HostImageBuildSpec): Promise<HostImageObserved> {
    const hash = await this.inputsHash(spec);
    return within(op, "host image", async (signal) => {
      const builds = join(this.cacheDirectory, "host-images");
      // One that was built before needs nothing.
      if (!(await describe(join(builds, hash)))) await requirePrograms("a host image", ["mmdebstrap", "openssl"]);
      await mkdir(builds, { recursive: true, mode: 0o700 });
      op.status("waiting for the build of the same image");
      const digest = await withLock(join(builds, ".locks", hash), signal, async () => {
        const built = join(builds, hash);
        const digest = (await describe(built))?.digest ?? (await this.buildInto(op, spec, built, signal));
        const now = new Date();
        await utimes(built, now, now);
        await claimImage(this.stateDirectory, digest, op.owner);
        await storeImage(this.stateDirectory, built, digest);
        await noteOrigin(this.stateDirectory, digest, { build: spec, inputsHash: hash });
        return digest;
      });
      await op.checkpoint("image-built");
      return (await readImage(this.stateDirectory, digest))!;
    });
  }

  async read(digest: string): Promise<HostImageObserved | undefined> {
    return readImage(this.stateDirectory, digest);
  }

  async findBuilt(inputsHash: string): Promise<HostImageObserved | undefined> {
    const built = join(this.cacheDirectory, "host-images", inputsHash);
    const description = await describe(built);
    return description && observed(built, description);
  }

  async release(op: Operation, digest: string): Promise<void> {
    await releaseClaim(this.stateDirectory, digest, op.owner);
    // Not only this one: an image that was let go while a machine still ran from it goes now.
    for (const unclaimed of await unclaimedImages(this.stateDirectory)) {
      if (!(await this.isUsed(unclaimed))) await removeImage(this.stateDirectory, unclaimed);
    }
  }

  private async buildInto(
    op: Operation,
    spec: HostImageBuildSpec,
    built: string,
    signal: AbortSignal,
  ): Promise<string> {
    if (process.getuid?.() !== 0) {
      throw new Error(
        "build: a host image is built by root, as its files belong to other users; run as root, or set digest to a published image",
      );
    }
    const { script, binaries } = buildPaths();
    // What killed calls left behind: while the lock is held, no other call works there.
    const builds = dirname(built);
    for (const name of await readdir(builds)) {
      if (name.startsWith(`${basename(built)}.building-`))
        await rm(join(builds, name), { recursive: true, force: true });
    }
    await removeUnusedBuilds(this.stateDirectory, builds);
    const output = await mkdtemp(`${built}.building-`);
    const layers = await mkdtemp(`${built}.building-`);
    try {
      await sealPauseImage(spec.keysDirectory, binaries, layers, this.cacheDirectory, op, signal);
      const args = ["--binaries", binaries, "--keys", spec.keysDirectory, "--layers", layers, "--mode", spec.mode];
      await runBuildScript(
        script,
        [...args, "--cache", this.cacheDirectory],
        output,
        built,
        (step) => op.status(step),
        signal,
      );
      const description = await describe(output);
      const digest = await digestOfFile(join(output, "disk.raw"), signal);
      if (description?.digest !== digest) {
        throw new Error(
          `build: ${output}/image.json says ${description?.digest ?? "nothing"}, but the disk's digest is ${digest}`,
        );
      }
      await rm(built, { recursive: true, force: true });
      await rename(output, built);
      return digest;
    } finally {
      for (const folder of [output, layers]) await rm(folder, { recursive: true, force: true });
    }
  }
}

/** The pause container's image comes with the host, sealed like any other. */
async function sealPauseImage(
  keysDirectory: string,
  binaries: string,
  store: string,
  cacheDirectory: string,
  op: Operation,
  signal: AbortSignal,
): Promise<void> {
  await sealArchiveIntoStore({
    archive: join(binaries, "pause.oci.tar"),
    store,
    signers: { layerSigner: keyPair(keysDirectory, "layers/layer"), sealSigner: keyPair(keysDirectory, "layers/seal") },
    cacheDirectory,
    status: (message) => op.status(`pause image: ${message}`),
    signal,
  });
}
