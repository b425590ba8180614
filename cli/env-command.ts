/** `palisade env`: for `eval "$(palisade env)"`. */
import { stackOfEnvironment } from "./arguments.js";
import { pulumiEnvironment, shellLines } from "./environment.js";
import { type OutputOptions, writeDocument } from "./output.js";

/** JSON: each variable and its value; null means that it is unset. */
export function env({ output }: OutputOptions): number {
  // Otherwise every command that follows would get a stack name that is not valid.
  stackOfEnvironment();
  const variables = pulumiEnvironment();
  if (output === "text") process.stdout.write(shellLines(variables));
  else {
    const values = Object.entries(variables).map(([name, value]): [string, string | null] => [name, value ?? null]);
    writeDocument({ variables: Object.fromEntries(values) });
  }
  return 0;
}
