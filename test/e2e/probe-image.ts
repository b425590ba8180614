/** The host image of the tests: the product's, with the probe of test/probe in it. */
import { execFileSync } from "node:child_process";
import { copyFileSync, cpSync, linkSync, mkdirSync, readdirSync, readFileSync, statSync } from "node:fs";
import path from "node:path";
import { storeImage, type Description } from "../../components/provider/host-images/store.js";
import { sealArchiveIntoStore } from "../../components/provider/sealing/host-store.js";
import { cacheDirectory, repository, type Environment } from "./environment.js";

/** Modes of the signed kernel image that the firmware boots; debug keeps what the others give up (hosts/image/build.sh). */
export type Mode = "enforce" | "audit" | "jit" | "debug";

/** Builds the probe, for a host or an image: a static program. */
export function buildProbe(program: string): void {
  mkdirSync(path.dirname(program), { recursive: true });
  execFileSync("go", ["build", "-trimpath", "-ldflags=-s -w", "-o", program, "./test/probe"], {
    cwd: repository,
    env: { ...process.env, CGO_ENABLED: "0" },
  });
}

/**
 * Builds the image with the operator's keys, once; the image of another mode has the same root file system. Puts it into the
 * image store of the environment.
 *
 * @returns the image's description.
 */
export async function storeProbeImage(environment: Environment, mode: Mode): Promise<Description> {
  const built = path.join(environment.root, "probe-image-enforce");
  if (!readdirSync(environment.root).includes(path.basename(built))) await build(environment, built);
  let folder = built;
  if (mode !== "enforce") {
    folder = path.join(environment.root, `probe-image-${mode}`);
    await succeed(environment, path.join(repository, "hosts/image/choose-mode.sh"), [
      ...["--image", built, "--mode", mode, "--output", folder, "--cache", cacheDirectory()],
    ]);
  }
  const description = JSON.parse(readFileSync(path.join(folder, "image.json"), "utf8")) as Description;
  await storeImage(environment.state, folder, description.digest);
  return description;
}

async function build(environment: Environment, output: string): Promise<void> {
  const work = path.join(environment.root, "probe-image-work");
  const binaries = path.join(work, "binaries");
  const layers = path.join(work, "layers");
  const keys = path.join(environment.home, "keys");
  linkTree(path.join(repository, "build", "host"), binaries);
  buildProbe(path.join(binaries, "palisade-probe"));
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
