import { mkdtemp, rm, stat, utimes } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { defaultCacheDirectory } from "../../../shared/directories.js";
import { digestOf } from "../registry/digest.js";
import { LayerCache } from "./layer-cache.js";
import { tarOf } from "./testing/bench.js";
import { sealTools } from "./tools.js";

let folder: string;
let cache: LayerCache;
beforeAll(async () => {
  folder = await mkdtemp(join(tmpdir(), "palisade-layer-cache-"));
  cache = new LayerCache(folder, await sealTools(defaultCacheDirectory()));
}, 300_000);
afterAll(() => rm(folder, { recursive: true, force: true }));

async function make(content: string) {
  const tar = await tarOf({ file: content });
  const stream = async function* () {
    yield tar;
  };
  return cache.make(digestOf(tar), () => Promise.resolve(stream()));
}

it("forgets what nobody asked for in 30 days, when it makes the next layer", async () => {
  const [unused, used] = [await make("unused"), await make("used")];
  const old = new Date(Date.now() - 31 * 24 * 60 * 60 * 1000);
  for (const { file } of [unused, used]) await utimes(file, old, old);
  expect(await cache.find(used.diffId)).toEqual(used);
  await make("next");
  await expect(stat(unused.file)).rejects.toThrow(/ENOENT/);
  expect(await cache.find(unused.diffId)).toBeUndefined();
  expect(await cache.find(used.diffId)).toEqual(used);
});
