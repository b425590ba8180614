/** Runs the example tests of docs/ on this clone, as a user runs them on the installed package. */
import path from "node:path";
import { defineConfig } from "vitest/config";

const repository = path.resolve(import.meta.dirname, "../../..");

export default defineConfig({
  root: repository,
  resolve: {
    alias: [
      { find: /^@palisade-host\/palisade$/, replacement: path.join(repository, "components/index.ts") },
      {
        find: /^@palisade-host\/palisade\/testing$/,
        replacement: path.join(repository, "components/testing/index.ts"),
      },
    ],
  },
  test: { include: ["docs/examples/*.test.ts"] },
});
