import { chmod, mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { requirePrograms } from "./programs.js";
import { withFolder } from "./testing.js";

it("names every program that is missing, and the packages that have them", async () => {
  await withFolder(async (folder) => {
    const reason = await requirePrograms("a host", ["qemu-system-x86_64", "swtpm", "vulndb"], folder).catch(
      (error: Error) => `${error.name}: ${error.message}`,
    );
    expect(reason).toBe(
      "MissingPrerequisiteError: a host needs qemu-system-x86_64, swtpm, vulndb, which this machine lacks: sudo apt-get install " +
        "qemu-system-x86 swtpm; `palisade patch-tools` builds vulndb and says which folder belongs on PATH. Nothing was made",
    );
  });
});

it("takes what can be executed, in any folder of PATH", async () => {
  await withFolder(async (folder) => {
    const [plain, good] = [join(folder, "plain"), join(folder, "good")];
    for (const place of [plain, good]) {
      await mkdir(place);
      await writeFile(join(place, "swtpm"), "");
    }
    await expect(requirePrograms("a host", ["swtpm"], plain)).rejects.toThrow(/needs swtpm/);
    await chmod(join(good, "swtpm"), 0o755);
    await requirePrograms("a host", ["swtpm"], `${plain}:${good}`);
  });
});
