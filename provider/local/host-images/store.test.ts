import { mkdir, readdir, rename, rm, stat, utimes, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { testOperation, testOwner, withFolder } from "../../system/testing.js";
import { hostImageInputsHash } from "./inputs.js";
import { LocalHostImages } from "./local-host-images.js";
import {
  claimImage,
  digestOfFile,
  expectedIntegrity,
  imageDirectory,
  listClaims,
  readImage,
  releaseClaim,
  removeUnusedBuilds,
  storeImage,
} from "./store.js";

async function built(folder: string): Promise<{ directory: string; digest: string }> {
  const directory = join(folder, "built");
  await mkdir(directory);
  await writeFile(join(directory, "disk.raw"), "a disk");
  await writeFile(join(directory, "OVMF_VARS.fd"), "variables");
  const digest = await digestOfFile(join(directory, "disk.raw"));
  const ipePolicy = { name: "palisade", version: "1.0.0" };
  const description = { digest, rootHash: "00", ipePolicy, mode: "audit", trustedCertificates: ["11"] };
  await writeFile(join(directory, "image.json"), JSON.stringify(description));
  return { directory, digest };
}

describe("the image store", () => {
  it("holds images by digest, read-only", async () => {
    await withFolder(async (folder) => {
      const { directory, digest } = await built(folder);
      expect(await readImage(folder, digest)).toBeUndefined();
      await storeImage(folder, directory, digest);
      await storeImage(folder, directory, digest);
      expect(await readImage(folder, digest)).toEqual({
        digest,
        directory: imageDirectory(folder, digest),
        rootHash: "00",
        ipePolicy: "palisade 1.0.0",
        mode: "audit",
        trustedCertificates: ["11"],
      });
      expect((await stat(join(imageDirectory(folder, digest), "disk.raw"))).mode & 0o222).toBe(0);
      expect(() => imageDirectory(folder, "sha256:../../x")).toThrow(/is no digest/);
    });
  });

  it("lists the claims of all owners", async () => {
    await withFolder(async (folder) => {
      expect(await listClaims(folder)).toEqual([]);
      const [one, two] = ["1", "2"].map((digit) => `sha256:${digit.repeat(64)}`) as [string, string];
      await claimImage(folder, one, testOwner("a"));
      await claimImage(folder, one, testOwner("b"));
      await claimImage(folder, two, testOwner("a"));
      await releaseClaim(folder, one, testOwner("b"));
      const claims = await listClaims(folder);
      expect(claims.sort((a, b) => a.digest.localeCompare(b.digest))).toEqual([
        { digest: one, owner: testOwner("a") },
        { digest: two, owner: testOwner("a") },
      ]);
    });
  });

  it("keeps an image until its last claim is given up and no machine uses it", async () => {
    await withFolder(async (folder) => {
      const { directory, digest } = await built(folder);
      await storeImage(folder, directory, digest);
      let used = true;
      const images = new LocalHostImages(folder, folder, async () => used);
      // An owner without a claim removes nothing, so an image put there by hand stays.
      await images.release(testOperation("stranger"), digest);
      await claimImage(folder, digest, testOwner("a"));
      await claimImage(folder, digest, testOwner("b"));
      await images.release(testOperation("a"), digest);
      expect(await images.read(digest)).toBeDefined();
      await images.release(testOperation("b"), digest);
      expect(await images.read(digest)).toBeDefined();
      // Given up while a machine ran from it: it is removed with the next release of any image.
      used = false;
      await images.release(testOperation("c"), `sha256:${"0".repeat(64)}`);
      expect(await images.read(digest)).toBeUndefined();
    });
  });
});

it("forgets builds that nobody asked for in 30 days, unless their image is in the store", async () => {
  await withFolder(async (folder) => {
    const [state, builds] = [join(folder, "state"), join(folder, "builds")];
    const old = new Date(Date.now() - 31 * 24 * 60 * 60 * 1000);
    const hash = (digit: string) => digit.repeat(64);
    await mkdir(join(builds, ".locks"), { recursive: true });
    for (const digit of ["1", "2", "3"]) {
      const { directory, digest } = await built(folder);
      if (digit === "2") await storeImage(state, directory, digest);
      await rename(directory, join(builds, hash(digit)));
      if (digit !== "2") await writeFile(join(builds, hash(digit), "image.json"), `{"digest":"sha256:${hash(digit)}"}`);
      await writeFile(join(builds, `${hash(digit)}.log`), "");
      await writeFile(join(builds, `${hash("1")}.mkosi.log`), "");
    }
    await mkdir(join(builds, `${hash("4")}.building-abcdef`));
    await writeFile(join(builds, "README"), "not ours");
    const names = await readdir(builds);
    for (const name of names.filter((one) => !one.startsWith(hash("3")))) await utimes(join(builds, name), old, old);
    await removeUnusedBuilds(state, builds);
    expect((await readdir(builds)).sort()).toEqual(
      [".locks", hash("2"), hash("3"), `${hash("3")}.log`, "README"].sort(),
    );
  });
});

describe("what a host has to report that runs an image", () => {
  const older = {
    digest: "sha256:00",
    rootHash: "aa",
    ipePolicy: { name: "palisade", version: "1.2.0" },
    mode: "enforce",
    trustedCertificates: [],
  };
  const reported = {
    mode: "enforce",
    ipeEnforcing: true,
    ipePolicy: "palisade",
    ipePolicyVersion: "1.2.0",
    rootHash: "aa",
    rootHashSignatureVerified: true,
    verityMount: "/",
    secureBoot: true,
  };

  it("is what its description says, and no more than that", () => {
    expect(expectedIntegrity(older)).toEqual(reported);
    const described = { kernelVersion: "6.12.1", lockdown: "integrity", selinux: "permissive" } as const;
    const ipePolicy = { ...older.ipePolicy, digest: "bb" };
    expect(expectedIntegrity({ ...older, ...described, ipePolicy })).toEqual({
      ...reported,
      ...described,
      ipePolicyDigest: "bb",
    });
  });

  it("follows the mode of the kernel image, whatever else the image has in it", () => {
    expect(expectedIntegrity({ ...older, mode: "enforce-probe" })).toEqual(reported);
    expect(expectedIntegrity({ ...older, mode: "audit-probe" })).toMatchObject({ mode: "audit", ipeEnforcing: false });
    expect(expectedIntegrity({ ...older, mode: "jit" })).toMatchObject({ mode: "jit", ipeEnforcing: true });
  });
});

describe("the hash over a build's inputs", () => {
  it("changes with definition, binaries and certificates, and with nothing else", async () => {
    await withFolder(async (folder) => {
      const paths = { definition: join(folder, "definition"), binaries: join(folder, "binaries") };
      const keysDirectory = join(folder, "keys");
      const roles = ["secure-boot", "image", "layers"].map((role) => join(keysDirectory, role));
      for (const path of [paths.definition, paths.binaries, ...roles]) await mkdir(path, { recursive: true });
      await writeFile(join(paths.definition, "mkosi.conf"), "a");
      await writeFile(join(paths.binaries, "palisade-agent"), "a");
      for (const name of [
        "secure-boot/pk",
        "secure-boot/kek",
        "secure-boot/db",
        "image/root-hash",
        "image/ipe-policy",
        "layers/layer",
        "layers/seal",
      ]) {
        await writeFile(join(keysDirectory, `${name}.crt`), name);
      }
      const hash = () => hostImageInputsHash({ mode: "audit", keysDirectory }, paths);
      const first = await hash();
      await writeFile(join(paths.definition, "README.md"), "no input");
      await writeFile(join(keysDirectory, "secure-boot", "db.key"), "no input");
      expect(await hash()).toBe(first);
      const seen = new Set([first]);
      for (const path of [
        join(paths.definition, "mkosi.conf"),
        join(paths.binaries, "palisade-agent"),
        join(keysDirectory, "image", "root-hash.crt"),
        join(keysDirectory, "layers", "seal.crt"),
        join(keysDirectory, "layers", "revoked.json"),
      ]) {
        await writeFile(path, "changed");
        seen.add(await hash());
      }
      expect(seen.size).toBe(6);
      await rm(join(keysDirectory, "secure-boot", "db.crt"));
      await expect(hash()).rejects.toThrow(/^build\.keysDirectory: .*db\.crt cannot be read.*palisade keys init/);
    });
  });
});
