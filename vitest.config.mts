/** The layers of tests, each a project of its own: `npx vitest run --project unit`. */
import { defineConfig } from "vitest/config";

const minutes = 60_000;

/** Layers that share this machine's QEMU or ports run one file after the other. */
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
    projects: [
      {
        test: {
          name: "unit",
          include: ["components/**/*.test.ts", "stacks/**/*.test.ts"],
          testTimeout: 20_000,
          hookTimeout: 20_000,
        },
      },
      {
        test: {
          name: "tools",
          include: ["test/tools/**/*.test.mjs", "test/acceptance/**/*.test.ts"],
          testTimeout: 60_000,
        },
      },
      { test: { name: "conformance", include: ["test/conformance/**/*.test.ts"], testTimeout: 10 * minutes } },
      {
        test: {
          name: "engine",
          // Each file has projects, worlds and directories of its own.
          include: ["test/engine/**/*.test.ts", "test/upgrade/**/*.test.ts"],
          testTimeout: 5 * minutes,
          hookTimeout: 5 * minutes,
          teardownTimeout: 2 * minutes,
        },
      },
      serial("contract", ["test/contract/**/*.test.ts"], 20 * minutes),
      serial("consumer", ["test/consumer/**/*.test.ts"], 15 * minutes),
      serial("patch", ["test/patch/**/*.test.ts"], 15 * minutes),
      serial("bench", ["test/bench/**/*.test.ts"], 90 * minutes),
      serial("metal", ["test/metal/**/*.test.ts"], 60 * minutes),
      serial("e2e", ["test/e2e/**/*.test.ts"], 45 * minutes),
    ],
  },
});
