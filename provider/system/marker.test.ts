import { readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { MarkerStore, idFor } from "./marker.js";
import { testOwner, withFolder } from "./testing.js";

const store = (folder: string) => new MarkerStore<{ size: number }, object>(join(folder, "things"), "thing");

describe("MarkerStore", () => {
  it("gives an owner one thing, and adopts it the next time", async () => {
    await withFolder(async (folder) => {
      const things = store(folder);
      const first = await things.adoptOrCreate(testOwner("a"), { size: 1 }, {});
      const again = await things.adoptOrCreate(testOwner("a"), { size: 2 }, {});
      const other = await things.adoptOrCreate(testOwner("b"), { size: 3 }, {});
      expect(again).toEqual(first);
      expect(other.id).not.toBe(first.id);
      expect((await things.list()).map((marker) => marker.id)).toEqual([first.id, other.id].sort());
      expect((await stat(join(things.folder(first.id), "marker.json"))).mode & 0o777).toBe(0o600);
    });
  });

  it("tells owners apart by every part", () => {
    const owner = testOwner("a");
    const ids = [
      owner,
      { ...owner, backend: "x" },
      { ...owner, project: "x" },
      { ...owner, stack: "x" },
      { ...owner, project: owner.project + owner.stack, stack: "" },
    ].map((each) => idFor("thing", each));
    expect(new Set(ids).size).toBe(ids.length);
  });

  it("removes a thing wholly, also twice", async () => {
    await withFolder(async (folder) => {
      const things = store(folder);
      const { id } = await things.adoptOrCreate(testOwner("a"), { size: 1 }, {});
      await things.remove(id);
      await things.remove(id);
      expect(await things.read(id)).toBeUndefined();
      expect(await readdir(things.directory)).toEqual([]);
    });
  });

  it("refuses markers of other versions and other machines", async () => {
    await withFolder(async (folder) => {
      const things = store(folder);
      const marker = await things.adoptOrCreate(testOwner("a"), { size: 1 }, {});
      const path = join(things.folder(marker.id), "marker.json");
      await writeFile(path, JSON.stringify({ ...marker, schemaVersion: 2 }));
      await expect(things.read(marker.id)).rejects.toThrow(/schema version 2/);
      await writeFile(path, JSON.stringify({ ...marker, machineId: "f".repeat(32) }));
      await expect(things.read(marker.id)).rejects.toThrow(/belongs to the machine f+/);
    });
  });

  it("takes no path for an id", async () => {
    await withFolder(async (folder) => {
      for (const id of ["../x", "thing-1", "disk-0123456789ab", ""]) {
        await expect(store(folder).read(id)).rejects.toThrow(/is no id of this kind/);
      }
    });
  });

  it("leaves a readable marker at any moment of a write", async () => {
    await withFolder(async (folder) => {
      const things = store(folder);
      const marker = await things.adoptOrCreate(testOwner("a"), { size: 0 }, {});
      const path = join(things.folder(marker.id), "marker.json");
      let done = false;
      const writer = (async () => {
        for (let size = 1; size <= 50; size++) await things.write({ ...marker, spec: { size } });
        done = true;
      })();
      while (!done) expect(JSON.parse(await readFile(path, "utf8"))).toHaveProperty("spec.size");
      await writer;
      expect((await things.existing(marker.id)).spec.size).toBe(50);
    });
  });
});
