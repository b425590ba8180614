/** `palisade env`: for `eval "$(palisade env)"`. */
import { parseArgs } from "node:util";
import type { Command } from "./commands.js";
import { pulumiEnvironment, shellLines } from "./environment.js";

export const envCommand: Command = {
  usage: "env",
  help: 'the environment for plain pulumi on this project: eval "$(palisade env)"',
  async run(args) {
    parseArgs({ args, options: {} });
    process.stdout.write(shellLines(pulumiEnvironment()));
    return 0;
  },
};
