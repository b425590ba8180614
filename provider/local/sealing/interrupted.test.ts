/**
 * Cancelled sealing leaves nothing incomplete, and the next run continues. test/layers/contract interrupts it at every
 * request.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { SealObserved } from "../../backends/index.js";
import { referrers } from "../registry/referrers.js";
import type { Repository } from "../registry/repository.js";
import { Bench, expectWhole, layerOf, noise, putImage, tarOf, type TestLayer } from "./testing/bench.js";

let bench: Bench;
let layers: TestLayer[];
beforeAll(async () => {
  bench = await Bench.start(await mkdtemp(join(tmpdir(), "palisade-interrupted-")));
  layers = [
    await layerOf(await tarOf({ "usr/big": noise("interrupted", 500_000) })),
    await layerOf(await tarOf({ "app/hello": "hello\n" })),
  ];
}, 300_000);
afterAll(async () => {
  await bench?.stop();
  if (bench) await rm(bench.folder, { recursive: true, force: true });
});

async function inRepository(name: string, work: (repository: Repository, image: string) => Promise<void>) {
  const repository = bench.repository(name);
  try {
    await work(repository, await putImage(repository, layers));
  } finally {
    repository.close();
  }
}

const withoutPlace = ({ reference: _reference, reusedLayers: _reused, ...rest }: SealObserved) => rest;

describe("a seal that is cancelled", () => {
  it.each(["layer-sealed", "image-signed", "seal-published"])("at %s", async (stopAt) => {
    const name = `cancelled/${stopAt}`;
    await inRepository(name, async (repository, image) => {
      const controller = new AbortController();
      const machine = await bench.machine(name, {}, controller.signal);
      const checkpoint = async (reached: string) => {
        if (reached === stopAt) controller.abort();
        controller.signal.throwIfAborted();
      };
      await expect(bench.seal(machine, name, image, { checkpoint })).rejects.toThrow(/abort/i);
      await expectWhole(repository, image, layers);
      const again = await bench.seal(await bench.machine(name), name, image);
      const other = await bench.seal(await bench.machine("interrupted"), name, image);
      expect(withoutPlace(again)).toEqual(withoutPlace(other));
      expect(again.reusedLayers).toBe(stopAt === "layer-sealed" ? 1 : 2);
    });
  });

  it("while a layer is being made", async () => {
    await inRepository("cancelled/making", async (repository, image) => {
      const controller = new AbortController();
      const machine = await bench.machine("cancelled-making", {}, controller.signal);
      machine.status = (message) => {
        if (message.endsWith("sealing")) setTimeout(() => controller.abort(), 20);
      };
      await expect(bench.seal(machine, "cancelled/making", image)).rejects.toThrow(/abort/i);
      expect(await referrers(repository, image)).toEqual([]);
      const { reusedLayers } = await bench.seal(await bench.machine("cancelled-making"), "cancelled/making", image);
      expect(reusedLayers).toBeLessThan(2);
    });
  });
});
