/**
 * How an end-to-end test writes down what it observed for a row of an acceptance table
 * (`test/support/acceptance/*.json`). Each row, or part of a row, is a file in build/reports/rows; `tables.ts` makes
 * the tables from them.
 */
import { createHash } from "node:crypto";
import { execFileSync } from "node:child_process";
import { mkdirSync, readFileSync, renameSync, writeFileSync } from "node:fs";
import path from "node:path";
import { packageRoot } from "../../../shared/directories.js";

export type Table = "attack" | "groups" | "patch" | "conformance" | "clouds";

export const tables: readonly Table[] = ["attack", "groups", "patch", "conformance", "clouds"];

/** A row as `test/support/acceptance/<table>.json` lists it. */
export interface Row {
  id: string;
  title: string;
  /** What must be observed. */
  expected: string;
  /** Parts without which the row is not proved. Default: the parts that were reported. */
  needs?: string[];
  /** Why no test observes the row: a row has this or a test that reports it. */
  notRun?: string;
}

/** What a test observed. */
export interface Observation {
  table: Table;
  /** The row, e.g. `V3`. */
  id: string;
  /** Names one of several tests that together prove the row. Default: the only one. */
  part?: string;
  observed: string;
  /** What the negative control showed, for a row about a protection: the same attack without the protection. */
  control?: string;
  pass: boolean;
  seconds: number;
  /** The audit record, counter or command output that shows it. */
  evidence: string;
  /** What the row claims and no test proves yet. While a part says so, the row does not pass. */
  missing?: string;
}

/** An observation on disk, with the content of the repository that it was made on. */
export type RecordedObservation = Observation & { subject: string };

export const repository = packageRoot();

export const reportsFolder = path.join(repository, "build", "reports");
export const rowsFolder = path.join(reportsFolder, "rows");

/** The rows of a table, in its order. */
export function readRows(table: Table): Row[] {
  return JSON.parse(readFileSync(path.join(repository, "test/support/acceptance", `${table}.json`), "utf8")) as Row[];
}

/**
 * A hash over everything that decides what a host and its tests do; an observation counts for the same content only.
 */
export function subject(): string {
  const folders = ["hosts", "bpf", "components", "stacks", "bin", "tools", "test", "package-lock.json", "go.sum"];
  const listing = execFileSync("git", ["ls-files", "-co", "--exclude-standard", "-z", "--", ...folders], {
    cwd: repository,
    encoding: "utf8",
    maxBuffer: 1 << 26,
  });
  const hash = createHash("sha256");
  for (const file of [...new Set(listing.split("\0"))].filter((name) => name !== "").sort()) {
    hash.update(`${file}\0`);
    try {
      hash.update(readFileSync(path.join(repository, file)));
    } catch (error) {
      // Deleted in the work tree, still in the index.
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    }
  }
  return hash.digest("hex");
}

/**
 * Writes an observation down. Call it also when the row does not hold, before the test fails.
 * @throws when the table has no such row
 */
export function report(observation: Observation, folder: string = rowsFolder): void {
  if (!readRows(observation.table).some((row) => row.id === observation.id)) {
    throw new Error(`id: the table ${observation.table} has no row "${observation.id}"`);
  }
  const target = path.join(folder, observation.table);
  mkdirSync(target, { recursive: true });
  const part = observation.part === undefined ? "" : `.${observation.part.replace(/[^A-Za-z0-9-]+/g, "-")}`;
  const file = path.join(target, `${observation.id}${part}.json`);
  const recorded: RecordedObservation = { ...observation, subject: subject() };
  writeFileSync(`${file}.new`, `${JSON.stringify(recorded, undefined, 2)}\n`);
  renameSync(`${file}.new`, file);
}
