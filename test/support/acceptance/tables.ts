/**
 * Writes build/reports/<table>.json for the tables named in the arguments (default: all) from what tests observed. A
 * row that nothing observed has `pass: null` and the reason; no row is left out.
 */
import { mkdirSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { namesIn } from "../directory.js";
import {
  readRows,
  reportsFolder,
  rowsFolder,
  subject,
  tables,
  type RecordedObservation,
  type Row,
  type Table,
} from "./report.js";

/** A row of a written table. */
export interface ReportedRow extends Row {
  observed: string | null;
  control: string | null;
  /** null: not run, or not wholly; `reason` says why. */
  pass: boolean | null;
  reason?: string;
  seconds: number | null;
  evidence: string | null;
}

const join = (texts: (string | undefined)[], separator: string): string | null => {
  const present = texts.filter((text) => text !== undefined && text !== "");
  return present.length === 0 ? null : present.join(separator);
};

/** One row from the observations of its parts. */
export function assemble(row: Row, observations: RecordedObservation[], current: string): ReportedRow {
  const valid = observations.filter((observation) => observation.subject === current);
  if (valid.length === 0) {
    const reason =
      observations.length === 0
        ? `not run: ${row.notRun ?? "the tests that observe this row were not run"}`
        : "observed on other content only; run make e2e";
    return { ...row, observed: null, control: null, pass: null, reason, seconds: null, evidence: null };
  }
  const absent = (row.needs ?? []).filter((need) => !valid.some(({ part }) => part === need));
  const missing = join(
    [...valid.map((observation) => observation.missing), ...absent.map((need) => `part ${need} was not run`)],
    "; ",
  );
  const failed = valid.some((observation) => !observation.pass);
  return {
    ...row,
    observed: join(
      valid.map((observation) => observation.observed),
      "; ",
    ),
    control: join(
      valid.map((observation) => observation.control),
      "; ",
    ),
    pass: failed ? false : missing === null ? true : null,
    ...(missing === null ? {} : { reason: `not proved yet: ${missing}` }),
    seconds: valid.reduce((sum, observation) => sum + observation.seconds, 0),
    evidence: join(
      valid.map((observation) => observation.evidence),
      "\n",
    ),
  };
}

function readObservations(table: Table): RecordedObservation[] {
  const folder = path.join(rowsFolder, table);
  return namesIn(folder)
    .filter((name) => name.endsWith(".json"))
    .map((name) => JSON.parse(readFileSync(path.join(folder, name), "utf8")) as RecordedObservation);
}

/** Writes one table and returns its rows. */
export function writeTable(table: Table, current: string): ReportedRow[] {
  const observations = readObservations(table);
  const rows = readRows(table).map((row) =>
    assemble(
      row,
      observations.filter((observation) => observation.id === row.id),
      current,
    ),
  );
  mkdirSync(reportsFolder, { recursive: true });
  writeFileSync(path.join(reportsFolder, `${table}.json`), `${JSON.stringify(rows, undefined, 2)}\n`);
  return rows;
}

function main(names: string[]): void {
  const wanted = names.length === 0 ? tables : tables.filter((table) => names.includes(table));
  const current = subject();
  for (const table of wanted) {
    const rows = writeTable(table, current);
    const count = (pass: boolean | null) => rows.filter((row) => row.pass === pass).length;
    console.log(
      `build/reports/${table}.json: ${count(true)} hold, ${count(false)} do not hold, ${count(null)} not proved ` +
        `of ${rows.length}`,
    );
    // A table that is named in the arguments is printed whole.
    for (const row of rows.filter(({ pass }) => names.length > 0 || pass === false)) {
      const state = row.pass === null ? "not proved" : row.pass ? "holds" : "DOES NOT HOLD";
      console.log(
        `  ${row.id.padEnd(4)} ${state.padEnd(14)} ${row.title}: ${(row.pass === null ? row.reason : row.observed) ?? ""}`,
      );
      if (row.pass === false) process.exitCode = 1;
    }
  }
}

if (require.main === module) main(process.argv.slice(2));
