import { chmod, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { withFolder } from "../../system/testing.js";
import { findPrograms } from "./programs.js";

it("says which programs are lacking, and how each is got", async () => {
  await withFolder(async (folder) => {
    const failure = await findPrograms(folder).catch((error: Error) => error);
    expect((failure as Error).message).toMatch(
      /^digest: patching needs trivy, copa, buildkitd, dpkg-deb.* on PATH.*apt-get install dpkg.*`palisade patch-tools` builds trivy, copa, buildkitd/,
    );
  });
});

it("takes what can be executed only, and the first of PATH", async () => {
  await withFolder(async (folder) => {
    const [plain, good] = [join(folder, "plain"), join(folder, "good")];
    for (const place of [plain, good]) {
      await mkdir(place);
      for (const name of ["trivy", "copa", "buildkitd", "dpkg-deb"]) await writeFile(join(place, name), "");
    }
    await expect(findPrograms(plain)).rejects.toThrow(/trivy, copa, buildkitd/);
    for (const name of ["trivy", "copa", "buildkitd", "dpkg-deb"]) await chmod(join(good, name), 0o755);
    const asked = findPrograms(`${plain}:${good}`).catch((error: Error) => error.message);
    const found = await asked;
    // runc is looked for in its own place.
    if (typeof found === "string") expect(found).not.toMatch(/trivy|copa/);
    else expect(found.copa).toBe(join(good, "copa"));
  });
});
