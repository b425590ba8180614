/**
 * Writes down what Go tests observed (`test/acceptance/row`): takes their lines from the events of `go test -json` in the
 * files named in the arguments.
 */
import { existsSync, readFileSync } from "node:fs";
import { report, type Observation } from "./report.js";

const prefix = "acceptance: ";

/** The observations in the events of `go test -json`. */
export function observations(events: string): Observation[] {
  const found: Observation[] = [];
  for (const line of events.split("\n")) {
    if (!line.startsWith("{") || !line.includes(prefix)) continue;
    const { Output: output } = JSON.parse(line) as { Output?: string };
    const start = output?.indexOf(prefix) ?? -1;
    if (output === undefined || start < 0) continue;
    found.push(JSON.parse(output.slice(start + prefix.length)) as Observation);
  }
  return found;
}

function main(files: string[]): void {
  for (const file of files.filter((name) => existsSync(name))) {
    for (const observation of observations(readFileSync(file, "utf8"))) report(observation);
  }
}

if (require.main === module) main(process.argv.slice(2));
