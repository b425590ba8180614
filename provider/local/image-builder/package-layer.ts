/** A root file system of Debian packages as a compressed layer, kept by what it is made of. */
import { createHash } from "node:crypto";
import { createReadStream, createWriteStream } from "node:fs";
import { mkdir, mkdtemp, readdir, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { Transform } from "node:stream";
import { pipeline } from "node:stream/promises";
import { createGzip } from "node:zlib";
import * as v from "valibot";
import { decode, object, unlessBroken } from "../../../shared/decode.js";
import { readFileIfPresent, writeFileAtomic } from "../../system/atomic-file.js";
import { CommandError, run } from "../../system/command.js";
import { withLock } from "../../system/lock.js";
import { requirePrograms } from "../../system/programs.js";
import { aptSourcesFor } from "./apt-sources.js";
import { epoch, type Layer } from "./oci-layout.js";

/** Has to be raised with every change of what is built from the same inputs. */
export const builderVersion = 1;

/** A container needs no documentation, manual pages or translations; copyright files stay, as licences require. */
const dpkgOptions = [
  ...["path-exclude=/usr/share/man/*", "path-exclude=/usr/share/info/*", "path-exclude=/usr/share/locale/*"],
  ...["path-exclude=/usr/share/doc/*", "path-include=/usr/share/doc/*/copyright", "path-exclude=/usr/share/lintian/*"],
];

/** Files that packages leave behind, and this machine's own: its package sources, name and resolver. */
const removed = [
  ...["etc/apt/sources.list.d", "etc/apt/apt.conf.d/99mmdebstrap", "etc/hostname", "etc/resolv.conf", "etc/machine-id"],
  ...[
    "var/cache/apt",
    "var/cache/debconf",
    "var/cache/ldconfig",
    "var/lib/apt/lists",
    "var/log/apt",
    "var/log/dpkg.log",
  ],
  ...["var/log/alternatives.log", "var/log/bootstrap.log", "var/lib/dpkg/status-old", "var/lib/dpkg/diversions-old"],
];

export interface PackageSet {
  suite: string;
  packages: string[];
  securityUpdates?: boolean;
  packageSources?: boolean;
}

/** What else belongs to a set: packages that are installed without being named, and their sources. */
function meaning({ suite, packages, securityUpdates = true, packageSources = false }: PackageSet) {
  return {
    packages: packageSources ? [...packages, "apt", "debian-archive-keyring"] : packages,
    sources: () => aptSourcesFor(suite, "/etc", securityUpdates ? "all" : "release"),
  };
}

/** Hash over the package set, this machine's sources of the suite, and the way it is built. */
export async function packageLayerHash(set: PackageSet): Promise<string> {
  const sources = await meaning(set).sources();
  const packages = [...new Set(meaning(set).packages)].sort();
  const inputs = { builderVersion, suite: set.suite, packages, sources, dpkgOptions, removed };
  return createHash("sha256").update(JSON.stringify(inputs)).digest("hex");
}

const layerSchema = object({ diffId: v.string(), digest: v.string(), size: v.number() });

/**
 * The layer of a package set; built at most once per hash, also by concurrent runs.
 *
 * @throws with the last lines of mmdebstrap's output when a package cannot be installed.
 */
export async function packageLayer(
  set: PackageSet,
  cacheDirectory: string,
  status: (message: string) => void,
  signal: AbortSignal,
): Promise<Layer> {
  const hash = await packageLayerHash(set);
  const folder = join(cacheDirectory, "debian-layers");
  // One that was built before needs nothing.
  if ((await readFileIfPresent(join(folder, hash, "layer.json"))) === undefined) {
    await requirePrograms("an image of Debian packages", ["mmdebstrap"]);
  }
  const kept = join(folder, hash);
  await mkdir(folder, { recursive: true, mode: 0o700 });
  status(`packages: ${set.packages.join(", ")} of ${set.suite}`);
  return withLock(join(folder, ".locks", hash), signal, async () => {
    const present = await readFileIfPresent(join(kept, "layer.json"));
    const layer =
      present === undefined
        ? undefined
        : await unlessBroken(async () => decode(layerSchema, present, join(kept, "layer.json")));
    if (layer !== undefined) return { ...layer, file: join(kept, "layer.tar.gz") };
    // What killed calls left behind: while the lock is held, no other call works there.
    for (const name of await readdir(folder)) {
      if (name.startsWith(`.building-${hash}-`)) await rm(join(folder, name), { recursive: true, force: true });
    }
    const work = await mkdtemp(join(folder, `.building-${hash}-`));
    try {
      const layer = await build(set, work, join(folder, `${hash}.log`), status, signal);
      await writeFileAtomic(join(work, "layer.json"), JSON.stringify(layer), 0o644);
      await rm(kept, { recursive: true, force: true });
      await rename(work, kept);
      return { ...layer, file: join(kept, "layer.tar.gz") };
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  });
}

async function build(
  set: PackageSet,
  work: string,
  logFile: string,
  status: (message: string) => void,
  signal: AbortSignal,
): Promise<Omit<Layer, "file">> {
  const sources = join(work, "debian.sources");
  const tar = join(work, "layer.tar");
  await writeFileAtomic(sources, await meaning(set).sources(), 0o644);
  try {
    await run(
      "mmdebstrap",
      [
        ...["--variant=essential", "--format=tar", `--include=${meaning(set).packages.join(",")}`],
        ...['--aptopt=APT::Install-Recommends "false"', ...dpkgOptions.map((option) => `--dpkgopt=${option}`)],
        // Some packages put links beside manual pages, which are left out, and do not install without their folders.
        '--essential-hook=for section in 1 5 7 8; do mkdir -p "$1/usr/share/man/man$section"; done',
        // mmdebstrap hands hooks to a shell; this one is made of constants only.
        `--customize-hook=cd "$1" && rm -rf ${removed.join(" ")}`,
        ...[set.suite, tar, sources],
      ],
      {
        directory: work,
        environment: { SOURCE_DATE_EPOCH: String(epoch), TMPDIR: work },
        logFile,
        signal,
        diesWithUs: true,
        onLine: (line) => {
          const step = /^I: (.+?)(\.\.\.)?$/.exec(line)?.[1];
          if (step !== undefined && !step.includes("/")) status(`packages: ${step}`);
        },
      },
    );
  } catch (error) {
    if (!(error instanceof CommandError)) throw error;
    const unknown = error.message.match(/Unable to locate package (\S+)/)?.[1];
    const field = unknown === undefined ? "packages" : `packages[${set.packages.indexOf(unknown)}]`;
    throw new Error(
      `${field}: ${JSON.stringify(unknown ?? set.packages)} cannot be installed from ${set.suite}: ${error.message}`,
    );
  }
  status("packages: compressing");
  const layer = await compress(tar, join(work, "layer.tar.gz"), signal);
  await rm(tar);
  return layer;
}

/**
 * Compresses a tar file and returns its digests. Node's gzip writes no time and no name, so the result is reproducible.
 */
async function compress(tar: string, file: string, signal: AbortSignal): Promise<Omit<Layer, "file">> {
  const content = createHash("sha256");
  const compressed = createHash("sha256");
  const through = (hash: typeof content) =>
    new Transform({
      transform(chunk: Buffer, _encoding, done) {
        hash.update(chunk);
        done(undefined, chunk);
      },
    });
  await pipeline(
    createReadStream(tar),
    through(content),
    createGzip({ level: 6 }),
    through(compressed),
    createWriteStream(file),
    { signal },
  );
  return {
    diffId: `sha256:${content.digest("hex")}`,
    digest: `sha256:${compressed.digest("hex")}`,
    size: (await stat(file)).size,
  };
}
