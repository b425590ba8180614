/**
 * What a host image is made of, as a hash: the definition, the host's binaries, the certificates, the package sources.
 */
import { createHash, type Hash } from "node:crypto";
import { existsSync } from "node:fs";
import { readdir, readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import type { HostImageBuildSpec } from "../../backends/index.js";
import { packageRoot } from "../../../shared/directories.js";
import { aptSourcesFor } from "../image-builder/apt-sources.js";

/** Suite that hosts are made of; hosts/image/build.sh says the same. */
const suite = "trixie";

export interface BuildPaths {
  script: string;
  definition: string;
  binaries: string;
}

/** Where definition and binaries are: `build/host` in a clone, `dist/host` in the published package. */
export function buildPaths(root = packageRoot()): BuildPaths {
  const definition = join(root, "hosts", "image");
  const candidates = ["build", "dist"].map((folder) => join(root, folder, "host"));
  const binaries = candidates.find((folder) => existsSync(join(folder, "palisade-agent")));
  if (binaries === undefined) {
    throw new Error(
      `build: the host's binaries are neither in ${candidates.join(" nor in ")}; run \`make host-binaries\``,
    );
  }
  return { script: join(definition, "build.sh"), definition, binaries };
}

const hashes = new Map<string, string>();

/** Hash of a file's content; known again while size and times stay the same, as Check asks often. */
async function fileHash(path: string): Promise<string> {
  const { size, mtimeMs, ctimeMs, ino } = await stat(path);
  const key = [path, size, mtimeMs, ctimeMs, ino].join("\0");
  let hash = hashes.get(key);
  if (hash === undefined) {
    hash = createHash("sha256")
      .update(await readFile(path))
      .digest("hex");
    hashes.set(key, hash);
  }
  return hash;
}

async function addFolder(hash: Hash, label: string, folder: string): Promise<void> {
  const entries = await readdir(folder, { recursive: true, withFileTypes: true });
  const paths = entries.filter((entry) => entry.isFile()).map((entry) => join(entry.parentPath, entry.name));
  for (const path of paths.sort()) {
    const name = path.slice(folder.length + 1);
    // Documentation, tests and what editors and builds leave are no inputs; as hosts/image/inputs.sh says.
    if (/\.md$|_test\.|(^|\/)\./.test(name)) continue;
    const executable = ((await stat(path)).mode & 0o111) !== 0;
    hash.update(`${label}/${name}\0${executable}\0${await fileHash(path)}\n`);
  }
}

/** Names, below the folder of keys, of the certificates that are built in. */
const certificates = [
  ...["secure-boot/pk", "secure-boot/kek", "secure-boot/db", "image/root-hash", "image/ipe-policy"],
  ...["layers/layer", "layers/seal"],
];
/** In the same folder: what hosts do not trust any more. */
const revocations = "layers/revoked.json";

/** @throws naming the file when a certificate or a binary is missing. */
export async function hostImageInputsHash(spec: HostImageBuildSpec, paths = buildPaths()): Promise<string> {
  const hash = createHash("sha256");
  hash.update(`${spec.mode}\n${await aptSourcesFor(suite)}\n`);
  await addFolder(hash, "definition", paths.definition);
  await addFolder(hash, "binaries", paths.binaries);
  for (const name of certificates) {
    const path = join(spec.keysDirectory, `${name}.crt`);
    try {
      hash.update(`${name}\0${await fileHash(path)}\n`);
    } catch (error) {
      throw new Error(
        `build.keysDirectory: ${path} cannot be read: ${(error as Error).message}; run \`palisade keys init\``,
      );
    }
  }
  const revoked = join(spec.keysDirectory, revocations);
  if (existsSync(revoked)) hash.update(`${revocations}\0${await fileHash(revoked)}\n`);
  return hash.digest("hex");
}
