/** `palisade env`: for `eval "$(palisade env)"`. */
import { stackOfEnvironment } from "./arguments.js";
import { pulumiEnvironment, shellLines } from "./environment.js";
import { type OutputOptions, writeDocument } from "./output.js";

/** JSON: each variable and its value; null is one to unset. */
export function env({ output }: OutputOptions): number {
  // A name that is none would otherwise stand in every command that follows.
  stackOfEnvironment();
  const variables = pulumiEnvironment();
  if (output === "text") process.stdout.write(shellLines(variables));
  else {
    const values = Object.entries(variables).map(([name, value]): [string, string | null] => [name, value ?? null]);
    writeDocument({ variables: Object.fromEntries(values) });
  }
  return 0;
}
