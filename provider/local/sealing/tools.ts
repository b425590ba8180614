/**
 * The programs that make sealed layers. Their versions are part of what they make, so pinned ones are used: this
 * machine's own where the versions are the pinned ones, else those of the Debian root that host images are built with,
 * which is made once and whose programs are run in place by its own dynamic loader.
 */
import { readFileSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { packageRoot } from "../../../shared/directories.js";
import { run, type CommandOptions } from "../../system/command.js";
import { requirePrograms } from "../../system/programs.js";

/** Debian suite of the root; its versions are the pinned ones. */
const suite = "trixie";

const pinned = { "mkfs.erofs": "1.8.6", veritysetup: "2.7.5" };
/** A point release of the suite may come with corrections; other series make other file systems. */
const series = { "mkfs.erofs": /^1\.8\./, veritysetup: /^2\.7\./ };

/** Versions of what a seal was made with, as recorded in it. */
export interface ToolVersions {
  "mkfs.erofs": string;
  veritysetup: string;
  palisade: string;
}

export type ToolName = "mkfs.erofs" | "veritysetup" | "openssl";

export interface SealTools {
  versions: ToolVersions;
  /** Runs one of the programs; returns its standard output. */
  run(tool: ToolName, args: string[], options?: CommandOptions): Promise<string>;
}

const found = new Map<string, Promise<SealTools>>();

/**
 * The tools; looked for once per process.
 *
 * @param cacheDirectory holds the Debian root, shared with host image builds. To make it, mmdebstrap needs root.
 * @throws with the reason when the root cannot be made or has other versions than the pinned series.
 */
export async function sealTools(
  cacheDirectory: string,
  signal?: AbortSignal,
  status: (message: string) => void = () => undefined,
): Promise<SealTools> {
  const present = found.get(cacheDirectory);
  if (present) return present;
  const search = findTools(cacheDirectory, signal, status);
  found.set(cacheDirectory, search);
  search.catch(() => found.delete(cacheDirectory));
  return search;
}

async function findTools(
  cacheDirectory: string,
  signal: AbortSignal | undefined,
  status: (message: string) => void,
): Promise<SealTools> {
  const onPath = (tool: ToolName, args: string[], options?: CommandOptions) => run(tool, args, options);
  const machine = await versionsOf(onPath).catch(() => undefined);
  if (machine?.["mkfs.erofs"] === pinned["mkfs.erofs"] && machine.veritysetup === pinned.veritysetup) {
    return { versions: { ...machine, palisade: palisadeVersion() }, run: onPath };
  }
  if ((await readdir(join(cacheDirectory, "image")).catch(() => [])).length === 0) {
    await requirePrograms("sealing", ["mmdebstrap"]);
  }
  status(`tools: Debian ${suite} root`);
  const script = join(packageRoot(), "hosts/image/scripts/tools-root.sh");
  const output = await run(script, [suite, join(cacheDirectory, "image")], signal === undefined ? {} : { signal });
  const root = output.trim();
  const inRoot = (tool: ToolName, args: string[], options?: CommandOptions) => {
    const libraries = ["usr/lib/x86_64-linux-gnu", "usr/lib/aarch64-linux-gnu", "usr/lib"].map((path) =>
      join(root, path),
    );
    const folder = tool === "veritysetup" ? "usr/sbin" : "usr/bin";
    const loader = join(root, process.arch === "arm64" ? "lib/ld-linux-aarch64.so.1" : "lib64/ld-linux-x86-64.so.2");
    return run(loader, ["--library-path", libraries.join(":"), join(root, folder, tool), ...args], options);
  };
  const versions = await versionsOf(inRoot);
  for (const tool of ["mkfs.erofs", "veritysetup"] as const) {
    if (!series[tool].test(versions[tool])) {
      throw new Error(
        `${tool} of ${root} is version ${versions[tool]}; ${pinned[tool]} or a correction of it is needed`,
      );
    }
  }
  return { versions: { ...versions, palisade: palisadeVersion() }, run: inRoot };
}

async function versionsOf(runTool: SealTools["run"]): Promise<Omit<ToolVersions, "palisade">> {
  const version = async (tool: "mkfs.erofs" | "veritysetup") =>
    /\d+\.\d+(\.\d+)*/.exec(await runTool(tool, ["--version"]))?.[0] ?? "unknown";
  return { "mkfs.erofs": await version("mkfs.erofs"), veritysetup: await version("veritysetup") };
}

/**
 * How layers are read. A change of what is made of the same archive makes it a new one, so that no earlier seal is
 * taken for it.
 */
const layerReading = 2;

function palisadeVersion(): string {
  const { version } = JSON.parse(readFileSync(join(packageRoot(), "package.json"), "utf8")) as { version: string };
  return `${version}+layers.${layerReading}`;
}
