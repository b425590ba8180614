/**
 * The image in which Copa looks for its tools. It updates its package lists, installs busybox in it and copies that
 * into the patched image to inspect it. So the image needs only a busybox and an apt-get that does nothing.
 */
import { mkdir, mkdtemp, readFile, rm } from "node:fs/promises";
import { join } from "node:path";
import type { RegistryAccess } from "../../backends/index.js";
import { fileLayer } from "../image-builder/file-layer.js";
import { writeLayout } from "../image-builder/oci-layout.js";
import { push } from "../image-builder/push.js";
import { isAbsent, writeFileAtomic } from "../../system/atomic-file.js";
import { run } from "../../system/command.js";
import { withLock } from "../../system/lock.js";
import { SuiteApt } from "./suite-apt.js";

/** Copa's own folder in its registry, a constant of its program. */
const copaFolder = "project-copacetic/copacetic";
/** Where Copa 0.11 looks, below its registry. Which tag depends on how it compares the releases' texts. */
const repository = `${copaFolder}/debian`;
const tags = ["stable-slim", "12-slim"];

/** Folder in the mirror that stands for Copa's registry. */
export const mirrorFolder = "upstream";

/**
 * The names that Copa's registry may have, from its program: what stands before its folder there. Go stores texts
 * without separators, so the end of the preceding text may look like a part of the name: all possible names are
 * returned, and only one of them is requested.
 *
 * @param file of the program.
 * @throws when the program has none.
 */
export async function copaRegistries(file: string): Promise<string[]> {
  const names = registryNames(await readFile(file));
  if (names.length > 0) return names;
  throw new Error(`${file} names no registry of its tooling image, as Copa 0.11 does; use that version`);
}

/** Exported for its test. */
export function registryNames(program: Buffer): string[] {
  const folder = Buffer.from(`/${copaFolder}`);
  const longest = 253;
  const names = new Set<string>();
  for (let at = program.indexOf(folder); at >= 0; at = program.indexOf(folder, at + 1)) {
    const before = program.toString("latin1", Math.max(0, at - longest), at);
    const tail = /[a-z0-9][a-z0-9.-]*$/.exec(before)?.[0] ?? "";
    for (let start = 0; start < tail.length; start++) {
      const name = tail.slice(start);
      if (/^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)+$/.test(name)) names.add(name);
    }
  }
  return [...names].sort();
}

const suite = "trixie";

/** Puts the image into the mirror. */
export async function pushToolingImage(
  registry: RegistryAccess,
  cacheDirectory: string,
  status: (message: string) => void,
  signal: AbortSignal,
): Promise<void> {
  const busybox = await staticBusybox(cacheDirectory, status, signal);
  const work = await mkdtemp(join(cacheDirectory, ".tooling-"));
  try {
    const files = { "/bin/busybox": busybox, "/usr/bin/apt-get": "#!/bin/busybox sh\nexit 0\n" };
    for (const tag of tags) {
      const layout = join(work, tag);
      await mkdir(layout);
      const layer = await fileLayer(files, join(layout, "layer.tar.gz"));
      const none = { entrypoint: [], command: [], environment: {}, labels: {} };
      await writeLayout(layout, [layer], { ...none, workingDirectory: "/" }, tag);
      await push(layout, tag, registry, `${mirrorFolder}/${repository}`, signal);
    }
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

/** Debian's busybox that needs no libraries; fetched once. */
async function staticBusybox(
  cacheDirectory: string,
  status: (message: string) => void,
  signal: AbortSignal,
): Promise<Buffer> {
  const state = join(cacheDirectory, "apt", suite);
  const kept = join(cacheDirectory, "apt", `busybox-${suite}`);
  return withLock(`${state}.lock`, signal, async () => {
    try {
      return await readFile(kept);
    } catch (error) {
      if (!isAbsent(error)) throw error;
    }
    status(`fetching busybox of ${suite}`);
    const apt = new SuiteApt(state, suite, signal);
    await apt.update();
    const work = await mkdtemp(join(state, "busybox-"));
    try {
      await apt.download(["busybox-static"], work);
      await run("sh", ["-c", "dpkg-deb --extract busybox-static_*.deb root"], { directory: work });
      const busybox = await readFile(join(work, "root/usr/bin/busybox"));
      await writeFileAtomic(kept, busybox, 0o755);
      return busybox;
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  });
}
