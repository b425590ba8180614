/**
 * Writes down what Go tests observed (`test/support/acceptance/row`): reads their lines from the events of `go test
 * -json` in the files named in the arguments.
 */
import { existsSync, readFileSync } from "node:fs";
import { report, type Observation } from "./report.js";

const prefix = "acceptance: ";

/** The observations in the log of a test binary that was run with -test.v. */
export const observationsInLog = (log: string): Observation[] =>
  log.split("\n").flatMap((line) => {
    const start = line.indexOf(prefix);
    return start < 0 ? [] : [JSON.parse(line.slice(start + prefix.length)) as Observation];
  });

/** The observations in the events of `go test -json`. */
export const observations = (events: string): Observation[] =>
  events
    .split("\n")
    .filter((line) => line.startsWith("{") && line.includes(prefix))
    .flatMap((line) => observationsInLog((JSON.parse(line) as { Output?: string }).Output ?? ""));

function main(files: string[]): void {
  for (const file of files.filter((name) => existsSync(name))) {
    for (const observation of observations(readFileSync(file, "utf8"))) report(observation);
  }
}

if (require.main === module) main(process.argv.slice(2));
