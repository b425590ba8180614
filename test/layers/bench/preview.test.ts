/**
 * What the package of a cloud adds to a preview: the time from `pulumi preview` to its end, beside that of an empty
 * program.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { EngineProject } from "../engine/project.js";
import { azure, kubernetes } from "../engine/stand-ins.js";

const rounds = 5;
const limit = 1.5;

describe("a preview", () => {
  const projects = {
    empty: new EngineProject("empty"),
    azure: new EngineProject("azure-group", "test", { standIns: [azure] }),
    kubernetes: new EngineProject("kubernetes-group", "test", { standIns: [kubernetes] }),
  };
  const seconds: Record<string, number[]> = { empty: [], azure: [], kubernetes: [] };

  // In turns, so that what else the machine does strikes all alike.
  beforeAll(async () => {
    for (const project of Object.values(projects)) await project.init();
    for (let round = 0; round <= rounds; round++) {
      for (const [name, project] of Object.entries(projects)) {
        const started = Date.now();
        await project.preview();
        // The first finds no file in the machine's cache.
        if (round > 0) seconds[name]!.push((Date.now() - started) / 1000);
      }
    }
  });
  afterAll(() => Object.values(projects).forEach((project) => project.remove()));

  const median = (name: string): number => seconds[name]!.sort((a, b) => a - b)[Math.floor(rounds / 2)]!;

  it.each(["azure", "kubernetes"])(
    "with the package of %s takes at most 1.5 times that of an empty program",
    (name) => {
      const factor = median(name) / median("empty");
      console.log(
        `${name}: ${median(name)} s, empty: ${median("empty")} s, factor ${factor.toFixed(2)}, limit ${limit}`,
      );
      expect(factor).toBeLessThanOrEqual(limit);
    },
  );
});
