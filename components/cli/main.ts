/** The command `palisade`. */
import { run } from "./commands.js";

void run(process.argv.slice(2)).then(
  (exitCode) => {
    process.exitCode = exitCode;
  },
  (error: unknown) => {
    process.stderr.write(`palisade: ${error instanceof Error ? error.message : String(error)}\n`);
    process.exitCode = 1;
  },
);
