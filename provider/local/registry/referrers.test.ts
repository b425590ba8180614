import { spawnSync } from "node:child_process";
import { describe, expect, it } from "vitest";
import { testOperation, withFolder } from "../../system/testing.js";
import { digestOf } from "./digest.js";
import { LocalRegistries } from "./local-registries.js";
import { imageManifestType } from "./media-types.js";
import { addTaggedReferrers, referrer, referrers } from "./referrers.js";
import { Repository } from "./repository.js";

const subject = `sha256:${"5".repeat(64)}`;
const artifactType = "application/vnd.example";

async function putArtifact(repository: Repository, name: string) {
  const config = Buffer.from("{}");
  await repository.putBlob({ digest: digestOf(config), size: config.length }, config);
  const bytes = Buffer.from(
    JSON.stringify({
      schemaVersion: 2,
      mediaType: imageManifestType,
      artifactType,
      config: { mediaType: "application/vnd.oci.empty.v1+json", digest: digestOf(config), size: config.length },
      layers: [],
      annotations: { name },
    }),
  );
  await repository.putManifest(digestOf(bytes), bytes, imageManifestType);
  return referrer({ bytes, digest: digestOf(bytes) }, artifactType);
}

describe.runIf(spawnSync("docker-registry", ["--version"]).status === 0)("a registry without the referrers API", () => {
  it("keeps what many writers of this process add to one subject at once", async () => {
    await withFolder(async (state) => {
      const registries = new LocalRegistries(state);
      const access = await registries.createRegistry(testOperation("a"), { port: 0 });
      const repositories = ["web", "web", "web", "web"].map((name) => new Repository(access, name));
      try {
        const [first] = repositories;
        expect(await referrers(first!, subject)).toEqual([]);
        const added = [];
        for (let index = 0; index < 8; index++) added.push(await putArtifact(first!, String(index)));
        await Promise.all(
          added.map((one, index) => addTaggedReferrers(repositories[index % repositories.length]!, subject, [one])),
        );
        const byDigest = (a: { digest: string }, b: { digest: string }) => (a.digest < b.digest ? -1 : 1);
        expect((await referrers(first!, subject)).sort(byDigest)).toEqual([...added].sort(byDigest));
        // Added again, nothing is there twice.
        await addTaggedReferrers(first!, subject, added);
        expect(await referrers(first!, subject)).toHaveLength(8);
        // What is not there is not referred to: the registry refuses it, and the queue goes on.
        const missing = { ...added[0]!, digest: `sha256:${"0".repeat(64)}` };
        await expect(addTaggedReferrers(first!, subject, [missing])).rejects.toThrow(/HTTP 40[04].*unknown/i);
        const last = await putArtifact(first!, "last");
        await addTaggedReferrers(first!, subject, [last]);
        expect(await referrers(first!, subject)).toHaveLength(9);
      } finally {
        repositories.forEach((repository) => repository.close());
        await registries.deleteRegistry(testOperation("a"), access.id);
      }
    });
  });
});

describe.runIf(spawnSync("docker-registry", ["--version"]).status === 0)("a repository", () => {
  it("takes blobs and manifests, and gives them back by digest", async () => {
    await withFolder(async (state) => {
      const registries = new LocalRegistries(state);
      const access = await registries.createRegistry(testOperation("a"), { port: 0 });
      const repository = new Repository(access, "web");
      const stranger = new Repository({ ...access, password: "wrong" }, "web");
      try {
        const content = Buffer.from("content");
        const blob = { digest: digestOf(content), size: content.length };
        expect(await repository.hasBlob(blob.digest)).toBe(false);
        await expect(repository.putBlob({ ...blob, digest: subject }, content)).rejects.toThrow(/DIGEST_INVALID/);
        expect(await repository.putBlob(blob, content)).toBe(true);
        expect(await repository.putBlob(blob, content)).toBe(false);
        expect(await repository.blob(blob.digest)).toEqual(content);
        await expect(stranger.blob(blob.digest)).rejects.toThrow(/refuses access to web \(HTTP 401\)/);
        await expect(repository.blob(subject)).rejects.toThrow(/HTTP 404 for blob sha256:5/);
        const { digest } = await putArtifact(repository, "a");
        expect((await repository.manifest(digest))!.digest).toBe(digest);
        expect(await repository.manifest(subject)).toBeUndefined();
        expect(await repository.listedReferrers(digest)).toBeUndefined();
      } finally {
        repository.close();
        stranger.close();
        await registries.deleteRegistry(testOperation("a"), access.id);
      }
    });
  });
});
