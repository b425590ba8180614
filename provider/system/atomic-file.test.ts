import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { readDirectoryIfPresent, readFileIfPresent } from "./atomic-file.js";
import { withFolder } from "./testing.js";

it("reads what is there, and treats what is not there as empty", async () => {
  await withFolder(async (folder) => {
    await mkdir(join(folder, "inner"));
    await writeFile(join(folder, "inner/file"), "text");
    expect(await readDirectoryIfPresent(join(folder, "inner"))).toEqual(["file"]);
    expect((await readDirectoryIfPresent(folder, { recursive: true })).sort()).toEqual(["inner", "inner/file"]);
    expect(await readFileIfPresent(join(folder, "inner/file"))).toBe("text");
    for (const absent of ["no", "inner/file/below"]) {
      expect(await readDirectoryIfPresent(join(folder, absent))).toEqual([]);
      expect(await readFileIfPresent(join(folder, absent))).toBeUndefined();
    }
  });
});

it("fails where something else stands in the way", async () => {
  await withFolder(async (folder) => {
    await expect(readFileIfPresent(folder)).rejects.toThrow(/EISDIR/);
    await expect(readDirectoryIfPresent("a\0b")).rejects.toThrow();
  });
});
