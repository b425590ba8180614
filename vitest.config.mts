/** The layers of tests, each a project of its own: `npx vitest run --project unit`. */
import { BaseSequencer, type TestSpecification } from "vitest/node";
import { defineConfig } from "vitest/config";

const minutes = 60_000;

/**
 * Files that take longest, in the order in which they start, so that two files side by side end at about the same time.
 */
const longest = [
  "test/layers/attack/probe-hosts.test.ts",
  "test/layers/e2e/main-job.test.ts",
  "test/layers/contract/real.test.ts",
  "test/layers/patch/patched-image.test.ts",
];

class LongestFirst extends BaseSequencer {
  override async sort(files: TestSpecification[]): Promise<TestSpecification[]> {
    const rank = ({ moduleId }: TestSpecification) => {
      const place = longest.findIndex((name) => moduleId.endsWith(name));
      return place < 0 ? longest.length : place;
    };
    return (await super.sort(files)).sort((a, b) => rank(a) - rank(b));
  }
}

/**
 * Layers whose files have projects, ports and folders of their own: two side by side, as an emulated machine uses one
 * core.
 */
function sideBySide(name: string, include: string[], testTimeout: number) {
  return { test: { name, include, testTimeout, hookTimeout: testTimeout, teardownTimeout: 2 * minutes } };
}

/** Layers whose files must not run beside each other, as they measure or share what there is once. */
function serial(name: string, include: string[], testTimeout: number) {
  return {
    test: {
      name,
      include,
      testTimeout,
      hookTimeout: testTimeout,
      teardownTimeout: 2 * minutes,
      fileParallelism: false,
    },
  };
}

export default defineConfig({
  test: {
    // Machines with two cores are the smallest that are supported.
    maxWorkers: 2,
    sequence: { sequencer: LongestFirst },
    projects: [
      {
        test: {
          name: "unit",
          include: ["{cli,command-plugin,components,provider,shared,stacks}/**/*.test.ts"],
          testTimeout: 20_000,
          hookTimeout: 20_000,
        },
      },
      {
        test: {
          name: "tools",
          include: ["tools/**/*.test.mjs", "test/support/acceptance/**/*.test.ts"],
          testTimeout: 60_000,
        },
      },
      { test: { name: "conformance", include: ["test/layers/conformance/**/*.test.ts"], testTimeout: 10 * minutes } },
      sideBySide("engine", ["test/layers/engine/**/*.test.ts", "test/layers/upgrade/**/*.test.ts"], 5 * minutes),
      sideBySide("contract", ["test/layers/contract/**/*.test.ts"], 20 * minutes),
      serial("consumer", ["test/layers/consumer/**/*.test.ts"], 15 * minutes),
      sideBySide("patch", ["test/layers/patch/**/*.test.ts"], 15 * minutes),
      serial("bench", ["test/layers/bench/**/*.test.ts"], 90 * minutes),
      serial("metal", ["test/layers/metal/**/*.test.ts"], 60 * minutes),
      sideBySide("e2e", ["test/layers/{e2e,attack}/**/*.test.ts"], 45 * minutes),
    ],
  },
});
