/**
 * Sealing on a real registry that breaks off at each request in turn: nothing half there, and repeated it comes to the
 * same end.
 */
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { fallbackTag, referrers } from "../../../provider/local/registry/referrers.js";
import {
  Bench,
  expectWhole,
  layerOf,
  putImage,
  tarOf,
  type TestLayer,
} from "../../../provider/local/sealing/testing/bench.js";
import { RegistryProxy } from "../../../provider/local/sealing/testing/proxy.js";

let bench: Bench;
let proxy: RegistryProxy;
let layer: TestLayer;
beforeAll(async () => {
  bench = await Bench.start(await mkdtemp(join(tmpdir(), "palisade-broken-off-")));
  proxy = await RegistryProxy.start(bench.access);
  layer = await layerOf(await tarOf({ "app/hello": "hello\n" }));
});
afterAll(async () => {
  await proxy?.stop();
  await bench?.stop();
  if (bench) await rm(bench.folder, { recursive: true, force: true });
});

const cases = [
  { listsReferrers: false, moment: "before" },
  { listsReferrers: false, moment: "after" },
  { listsReferrers: true, moment: "before" },
] as const;

describe.each(cases)("a seal that is broken off $moment a request (referrers API: $listsReferrers)", (one) => {
  const { listsReferrers, moment } = one;
  /** Answers up to a request, and nothing from then on, so that trying again at once does not help. */
  function breakingOff(at: number) {
    let count = 0;
    const behaviour = {
      listsReferrers,
      isBroken: false,
      breakOff(method: string) {
        if (behaviour.isBroken) return "before";
        // Where nothing is changed, it is the same whether the registry has heard of it.
        if (moment === "after" && !["PUT", "POST"].includes(method)) return undefined;
        behaviour.isBroken = ++count === at;
        return behaviour.isBroken ? moment : undefined;
      },
    };
    return behaviour;
  }

  it("leaves nothing half published, and has the same result when it is repeated", async () => {
    const machine = await bench.machine("interrupted");
    const ends = new Set<string>();
    // With the API it goes the same way up to the manifests.
    let at = listsReferrers ? 15 : 1;
    for (; ; at++) {
      const name = `broken/${listsReferrers}/${moment}/${at}`;
      const seal = (image: string) => bench.seal(machine, name, image, { registry: proxy.access });
      let wasBroken = false;
      const repository = bench.repository(name);
      try {
        const image = await putImage(repository, [layer]);
        const behaviour = breakingOff(at);
        proxy.behaviour = behaviour;
        const failure = await seal(image).then(
          () => undefined,
          (error: Error) => error,
        );
        wasBroken = behaviour.isBroken;
        proxy.behaviour = { listsReferrers };
        if (wasBroken) expect(failure?.message).toMatch(/does not answer/);
        await expectWhole(repository, image, [layer]);
        const { reference: _place, reusedLayers: _before, ...end } = await seal(image);
        ends.add(JSON.stringify(end));
        // The tag is for registries without the API only.
        expect((await repository.manifest(fallbackTag(image))) === undefined).toBe(listsReferrers);
        if (!listsReferrers) expect(await referrers(repository, image)).toHaveLength(2);
      } finally {
        repository.close();
      }
      if (!wasBroken) break;
    }
    // Each request of a sealing was the last one once.
    expect(at).toBeGreaterThan(moment === "before" ? 20 : 10);
    expect([...ends]).toHaveLength(1);
  });
});
