/** `palisade keys init`. */
import { parseArgs } from "node:util";
import type { Command } from "./commands.js";
import { initKeys } from "./keys.js";

export const keysCommand: Command = {
  usage: "keys init [--directory DIR]",
  help: "makes what is missing of the operator's keys",
  async run(args) {
    const { values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: { directory: { type: "string" } },
    });
    if (positionals.length !== 1 || positionals[0] !== "init") {
      process.stderr.write("palisade keys: expected 'init', e.g. palisade keys init\n");
      return 2;
    }
    const report = await initKeys(values.directory);
    const made = report.made.length === 0 ? "all there, nothing changed" : `made ${report.made.join(", ")}`;
    process.stdout.write(`keys in ${report.directory}: ${made}\n`);
    return 0;
  },
};
