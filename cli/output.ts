/** How commands print: text for people, or JSON whose shape stays as `docs/command.md` describes it. */

export type OutputFormat = "text" | "json";

/** Options of every command that shows something. */
export interface OutputOptions {
  output: OutputFormat;
}

/** One JSON document: what a command that ends prints. */
export function writeDocument(value: object): void {
  process.stdout.write(`${JSON.stringify(value, undefined, 2)}\n`);
}

/** A line of JSON: what a command prints that shows things as they happen. */
export function writeLine(value: object): void {
  process.stdout.write(`${JSON.stringify(value)}\n`);
}
