/** The command `palisade`. */
import { runToEnd } from "./commands.js";

// The program that reads our output may stop reading, as `head` does.
process.stdout.on("error", (error: NodeJS.ErrnoException) => {
  if (error.code !== "EPIPE") throw error;
  process.exit(0);
});

void runToEnd(process.argv.slice(2)).then((exitCode) => {
  process.exitCode = exitCode;
});
