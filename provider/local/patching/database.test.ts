import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { withFolder } from "../../system/testing.js";
import { requireCoverage, descriptionFile, findDatabase, type DatabaseDescription } from "./database.js";

const description: DatabaseDescription = {
  ...{ digest: `sha256:${"1".repeat(64)}`, suite: "trixie", release: "13", packages: ["nginx"] },
  ...{ covers: ["nginx", "krb5"], advisories: 2, builtAt: "2026-11-24T00:00:00Z" },
};
const image = { version: "13.8", packages: [{ name: "libkrb5-3", source: "krb5" }] };

it("has the digest of its content, or of what Trivy's own says of itself", async () => {
  await withFolder(async (folder) => {
    await expect(findDatabase(folder)).rejects.toThrow(/holds no vulnerability database.*palisade vulndb build/);
    await mkdir(join(folder, "db"));
    await writeFile(join(folder, "db/metadata.json"), '{"Version":2}');
    const foreign = await findDatabase(folder);
    expect(foreign.digest).toMatch(/^sha256:[0-9a-f]{64}$/);
    requireCoverage(foreign, { version: "12.1", packages: [{ name: "any", source: "any" }] });
    await writeFile(join(folder, descriptionFile), JSON.stringify(description));
    expect(await findDatabase(folder)).toEqual({ directory: folder, digest: description.digest, description });
  });
});

it("is refused for an image of which it knows nothing", () => {
  const database = { directory: "/db", digest: description.digest, description };
  requireCoverage(database, image);
  expect(() => requireCoverage(database, { ...image, version: "12.1" })).toThrow(
    /is of Debian 13, the image is Debian 12\.1/,
  );
  const more = { ...image, packages: [...image.packages, { name: "curl", source: "curl" }] };
  expect(() => requireCoverage(database, more)).toThrow(/knows nothing of 1 packages of the image, curl;/);
});
