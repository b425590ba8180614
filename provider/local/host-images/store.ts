/** The image store: `<state>/images/<sha256 hex>/` with disk.raw, OVMF_VARS.fd and image.json, read-only and shared. */
import { createHash } from "node:crypto";
import { createReadStream } from "node:fs";
import { chmod, copyFile, link, mkdir, mkdtemp, readdir, rename, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { pipeline } from "node:stream/promises";
import * as v from "valibot";
import { decode, object, unlessBroken } from "../../../shared/decode.js";
import type { ExpectedIntegrity, HostImageObserved, Owner } from "../../backends/index.js";
import { readDirectoryIfPresent, readFileIfPresent, writeFileAtomic } from "../../system/atomic-file.js";
import { idFor } from "../../system/marker.js";

const files = ["disk.raw", "OVMF_VARS.fd", "image.json"];
/** Beside them, for an image built on this machine: what it was built from. */
const originFile = "built-from.json";

/** The fields of image.json that are used here; hosts/image/scripts/describe.sh writes it. */
export interface Description {
  digest: string;
  rootHash: string;
  /** `digest` is the SHA-256 of its text, hex. */
  ipePolicy: { name: string; version: string; digest?: string };
  mode: string;
  trustedCertificates: string[];
  kernelVersion?: string;
  lockdown?: string;
  selinux?: "enforcing" | "permissive";
}

const descriptionSchema = object({
  digest: v.string(),
  rootHash: v.string(),
  ipePolicy: object({ name: v.string(), version: v.string(), digest: v.optional(v.string()) }),
  mode: v.string(),
  trustedCertificates: v.array(v.string()),
  kernelVersion: v.optional(v.string()),
  lockdown: v.optional(v.string()),
  selinux: v.optional(v.picklist(["enforcing", "permissive"])),
});
const builtFromSchema = object({ build: object({}), inputsHash: v.string() });

/** Folder of an image; it need not exist. */
export function imageDirectory(stateDirectory: string, digest: string): string {
  const hex = /^sha256:([0-9a-f]{64})$/.exec(digest)?.[1];
  if (hex === undefined)
    throw new Error(`imageDigest: ${JSON.stringify(digest)} is no digest; it looks like sha256:<64 hex>`);
  return join(stateDirectory, "images", hex);
}

/** sha256:<hex> of a file. */
export async function digestOfFile(path: string, signal?: AbortSignal): Promise<string> {
  const hash = createHash("sha256");
  await pipeline(createReadStream(path, { highWaterMark: 1024 * 1024 }), hash, { signal });
  return `sha256:${hash.digest("hex")}`;
}

/** Reads an image folder's description. */
export async function describe(directory: string): Promise<Description | undefined> {
  const file = join(directory, "image.json");
  const content = await readFileIfPresent(file);
  return content === undefined ? undefined : decode(descriptionSchema, content, file);
}

/** An image of the store; undefined when it is not there. */
export async function readImage(stateDirectory: string, digest: string): Promise<HostImageObserved | undefined> {
  const directory = imageDirectory(stateDirectory, digest);
  const description = await describe(directory);
  if (!description) return undefined;
  const origin = await readFileIfPresent(join(directory, originFile));
  return {
    ...observed(directory, description),
    ...(origin === undefined
      ? {}
      : {
          builtFrom: decode(
            builtFromSchema,
            origin,
            join(directory, originFile),
          ) as unknown as HostImageObserved["builtFrom"],
        }),
  };
}

/** A description in the provider's words. */
export function observed(directory: string, description: Description): HostImageObserved {
  const { digest, rootHash, ipePolicy, mode, trustedCertificates } = description;
  const policy = `${ipePolicy.name} ${ipePolicy.version}`;
  return { digest, directory, rootHash, ipePolicy: policy, mode, trustedCertificates };
}

/** What a host has to report that runs the described image. Images of older versions describe less. */
export function expectedIntegrity(description: Description): ExpectedIntegrity {
  const { rootHash, ipePolicy, kernelVersion, lockdown, selinux } = description;
  // An image of a profile, as `enforce-probe`, has the kernel image of the mode.
  const mode = description.mode.split("-")[0]!;
  return {
    mode,
    ipeEnforcing: mode !== "audit",
    ipePolicy: ipePolicy.name,
    ipePolicyVersion: ipePolicy.version,
    rootHash,
    // Without these the initrd powers the machine off (hosts/initrd).
    rootHashSignatureVerified: true,
    verityMount: "/",
    secureBoot: true,
    ...(ipePolicy.digest === undefined ? {} : { ipePolicyDigest: ipePolicy.digest }),
    ...(kernelVersion === undefined ? {} : { kernelVersion }),
    ...(lockdown === undefined ? {} : { lockdown }),
    ...(selinux === undefined ? {} : { selinux }),
  };
}

/** Notes what an image of the store was built from, the latest where several builds gave the same image. */
export async function noteOrigin(
  stateDirectory: string,
  digest: string,
  origin: NonNullable<HostImageObserved["builtFrom"]>,
): Promise<void> {
  await writeFileAtomic(join(imageDirectory(stateDirectory, digest), originFile), `${JSON.stringify(origin)}\n`);
}

/** Puts a built image into the store, by links where the file systems allow it. */
export async function storeImage(stateDirectory: string, built: string, digest: string): Promise<void> {
  const directory = imageDirectory(stateDirectory, digest);
  if (await describe(directory)) return;
  const parent = join(stateDirectory, "images");
  await mkdir(parent, { recursive: true, mode: 0o700 });
  const work = await mkdtemp(join(parent, ".storing-"));
  try {
    for (const file of files) {
      const target = join(work, file);
      await link(join(built, file), target).catch(() => copyFile(join(built, file), target));
      await chmod(target, 0o444);
    }
    await rm(directory, { recursive: true, force: true });
    await rename(work, directory);
  } finally {
    await rm(work, { recursive: true, force: true });
  }
}

const claims = (directory: string) => `${directory}.claims`;

/** Claims an image for an owner: it stays until the claim is given up. */
export async function claimImage(stateDirectory: string, digest: string, owner: Owner): Promise<void> {
  const folder = claims(imageDirectory(stateDirectory, digest));
  await mkdir(folder, { recursive: true, mode: 0o700 });
  await writeFile(join(folder, idFor("claim", owner)), `${JSON.stringify(owner)}\n`, { mode: 0o600 });
}

/** Gives up an owner's claim, if there is one. */
export async function releaseClaim(stateDirectory: string, digest: string, owner: Owner): Promise<void> {
  await rm(join(claims(imageDirectory(stateDirectory, digest)), idFor("claim", owner)), { force: true });
}

const ownerSchema = object({
  backend: v.string(),
  project: v.string(),
  stack: v.string(),
  urn: v.string(),
}) satisfies v.GenericSchema<unknown, Owner>;

/** Every claim on an image of the store. */
export async function listClaims(stateDirectory: string): Promise<{ digest: string; owner: Owner }[]> {
  const store = join(stateDirectory, "images");
  const found: { digest: string; owner: Owner }[] = [];
  for (const folder of await readDirectoryIfPresent(store)) {
    const hex = /^([0-9a-f]{64})\.claims$/.exec(folder)?.[1];
    if (hex === undefined) continue;
    for (const name of await readDirectoryIfPresent(join(store, folder))) {
      const file = join(store, folder, name);
      const content = await readFileIfPresent(file);
      // A claim without a file has been given up just now.
      if (content !== undefined) found.push({ digest: `sha256:${hex}`, owner: decode(ownerSchema, content, file) });
    }
  }
  return found;
}

/** Images whose claims were all given up. An image that was put into the store by hand was never claimed, and stays. */
export async function unclaimedImages(stateDirectory: string): Promise<string[]> {
  const store = join(stateDirectory, "images");
  const names = await readDirectoryIfPresent(store);
  const unclaimed: string[] = [];
  for (const name of names.filter((entry) => /^[0-9a-f]{64}$/.test(entry))) {
    const owners = await readdir(claims(join(store, name))).catch(() => undefined);
    if (owners?.length === 0) unclaimed.push(`sha256:${name}`);
  }
  return unclaimed;
}

/** Removes an image. */
export async function removeImage(stateDirectory: string, digest: string): Promise<void> {
  const directory = imageDirectory(stateDirectory, digest);
  await rm(directory, { recursive: true, force: true });
  await rm(claims(directory), { recursive: true, force: true });
}

/** After how long without use a build is removed; longer than any call lasts that may still read it. */
const unusedMs = 30 * 24 * 60 * 60 * 1000;

/**
 * Removes builds that were not requested for 30 days, with their logs and what killed builds left behind. A build whose
 * image is in the store stays: it takes no space, as both share their blocks.
 *
 * @param builds folder of `<inputs' hash>/`, with logs beside it.
 */
export async function removeUnusedBuilds(stateDirectory: string, builds: string): Promise<void> {
  for (const name of await readdir(builds)) {
    if (!/^[0-9a-f]{64}((\.mkosi)?\.log|\.building-.*)?$/.test(name)) continue;
    const path = join(builds, name);
    const used = await stat(path).catch(() => undefined);
    if (!used || Date.now() - used.mtimeMs <= unusedMs) continue;
    // A build with a damaged description is useless.
    const digest = name.length === 64 ? (await unlessBroken(() => describe(path)))?.digest : undefined;
    if (digest !== undefined && (await unlessBroken(() => describe(imageDirectory(stateDirectory, digest))))) continue;
    await rm(path, { recursive: true, force: true });
  }
}
