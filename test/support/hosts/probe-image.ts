/** The host image of the tests: the product's, with the probe of test/support/probe in it. */
import { execFileSync } from "node:child_process";
import {
  copyFileSync,
  cpSync,
  existsSync,
  linkSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
} from "node:fs";
import path from "node:path";
import { hostImageInputsHash } from "../../../provider/local/host-images/inputs.js";
import { storeImage, type Description } from "../../../provider/local/host-images/store.js";
import { withLock } from "../../../provider/system/lock.js";
import { sealArchiveIntoStore } from "../../../provider/local/sealing/host-store.js";
import { cacheDirectory, repository, type Environment } from "./environment.js";

/**
 * Modes of the signed kernel image that the firmware boots; debug keeps what the others give up (hosts/image/build.sh).
 */
export type Mode = "enforce" | "audit" | "jit" | "debug";

/** Builds the probe, for a host or an image: a static program. */
export function buildProbe(program: string): void {
  mkdirSync(path.dirname(program), { recursive: true });
  execFileSync("go", ["build", "-trimpath", "-ldflags=-s -w", "-o", program, "./test/support/probe"], {
    cwd: repository,
    env: { ...process.env, CGO_ENABLED: "0" },
  });
}

/**
 * Builds the image with the operator's keys, once for the same inputs on this machine; the image of another mode has
 * the same root file system. Puts it into the image store of the environment.
 *
 * @returns the image's description.
 */
export async function storeProbeImage(environment: Environment, mode: Mode): Promise<Description> {
  const folder = await cachedImage(environment, mode);
  const description = JSON.parse(readFileSync(path.join(folder, "image.json"), "utf8")) as Description;
  await storeImage(environment.state, folder, description.digest);
  return description;
}

/** Images of the tests that are kept; the ones that were used last. */
const keptImages = 6;

async function cachedImage(environment: Environment, mode: Mode): Promise<string> {
  const images = path.join(cacheDirectory(), "test-images");
  const work = mkdtempSync(path.join(environment.root, "probe-image-"));
  try {
    const binaries = path.join(work, "binaries");
    linkTree(path.join(repository, "build", "host"), binaries);
    buildProbe(path.join(binaries, "palisade-probe"));
    const keysDirectory = path.join(environment.home, "keys");
    const script = path.join(repository, "hosts/image/build.sh");
    const paths = { script, definition: path.dirname(script), binaries };
    const inputs = await hostImageInputsHash({ mode: "enforce", keysDirectory }, paths);
    const enforcing = path.join(images, `${inputs}-enforce`);
    const wanted = path.join(images, `${inputs}-${mode}`);
    return await withLock(`${images}/.lock`, undefined, async () => {
      if (!existsSync(enforcing)) await made(enforcing, (output) => build(environment, work, binaries, output));
      if (!existsSync(wanted)) {
        await made(wanted, (output) =>
          succeed(environment, path.join(repository, "hosts/image/choose-mode.sh"), [
            ...["--image", enforcing, "--mode", mode, "--output", output, "--cache", cacheDirectory()],
          ]),
        );
      }
      const now = new Date();
      for (const used of [enforcing, wanted]) utimesSync(used, now, now);
      removeOldest(images);
      return wanted;
    });
  } finally {
    rmSync(work, { recursive: true, force: true });
  }
}

/** Makes a folder at once or not at all. */
async function made(folder: string, make: (output: string) => Promise<void>): Promise<void> {
  const output = `${folder}.new`;
  rmSync(output, { recursive: true, force: true });
  await make(output);
  renameSync(output, folder);
}

function removeOldest(images: string): void {
  const age = (name: string) => statSync(path.join(images, name)).mtimeMs;
  const names = readdirSync(images).filter((name) => !name.startsWith("."));
  for (const name of names.sort((a, b) => age(b) - age(a)).slice(keptImages)) {
    rmSync(path.join(images, name), { recursive: true, force: true });
  }
}

async function build(environment: Environment, work: string, binaries: string, output: string): Promise<void> {
  const layers = path.join(work, "layers");
  const keys = path.join(environment.home, "keys");
  const signer = (name: string) => ({
    certificateFile: path.join(keys, "layers", `${name}.crt`),
    keyFile: path.join(keys, "layers", `${name}.key`),
  });
  await sealArchiveIntoStore({
    archive: path.join(binaries, "pause.oci.tar"),
    store: layers,
    signers: { layerSigner: signer("layer"), sealSigner: signer("seal") },
    cacheDirectory: cacheDirectory(),
  });
  await succeed(environment, path.join(repository, "hosts/image/build.sh"), [
    ...["--binaries", binaries, "--keys", keys, "--layers", layers, "--output", output, "--cache", cacheDirectory()],
    ...["--mode", "enforce", "--profile", "probe"],
  ]);
}

async function succeed(environment: Environment, command: string, args: string[]): Promise<void> {
  const { exitCode, stderr } = await environment.run(command, args);
  if (exitCode !== 0) throw new Error(`the probe's image: ${path.basename(command)} failed:\n${stderr}`);
}

function linkTree(from: string, to: string): void {
  mkdirSync(to, { recursive: true });
  for (const name of readdirSync(from)) {
    const source = path.join(from, name);
    const target = path.join(to, name);
    if (statSync(source).isDirectory()) cpSync(source, target, { recursive: true });
    else {
      try {
        linkSync(source, target);
      } catch {
        // Another file system.
        copyFileSync(source, target);
      }
    }
  }
}
