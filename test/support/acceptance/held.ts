/**
 * The rows that a whole `make test` holds, `held.json`: one of them that is not proved any more is a failure. With the
 * name of a file in the arguments: compares the tables in build/reports with the list and writes the differences there,
 * as a report of vitest. With --add: adds the rows that the tables hold to the list; rows are taken off it by hand
 * only.
 */
import { existsSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { reportsFolder, repository, tables, type Table } from "./report.js";
import type { ReportedRow } from "./tables.js";

/** The ids of rows by table. */
export type Held = Partial<Record<Table, string[]>>;

const listFile = path.join(repository, "test/support/acceptance/held.json");

/** The rows of the list that the tables do not hold, with what the tables say of them. */
export function lost(held: Held, reported: Partial<Record<Table, ReportedRow[]>>): { name: string; reason: string }[] {
  return tables.flatMap((table) =>
    (held[table] ?? []).flatMap((id) => {
      const row = reported[table]?.find((each) => each.id === id);
      if (row?.pass === true) return [];
      const reason =
        row === undefined
          ? "the table has no such row"
          : row.pass === false
            ? `does not hold: ${row.observed ?? ""}`
            : (row.reason ?? "not proved");
      return [{ name: `${table} ${id}: ${row?.title ?? ""}`, reason }];
    }),
  );
}

/** The list with the rows that the tables hold, in the tables' order; what is on the list stays. */
export function withHeld(held: Held, reported: Partial<Record<Table, ReportedRow[]>>): Held {
  return Object.fromEntries(
    tables.map((table) => {
      const before = held[table] ?? [];
      const rows = reported[table] ?? [];
      const known = rows.filter(({ id, pass }) => pass === true || before.includes(id)).map(({ id }) => id);
      return [table, [...known, ...before.filter((id) => !known.includes(id))]];
    }),
  );
}

function readReported(): Partial<Record<Table, ReportedRow[]>> {
  return Object.fromEntries(
    tables.flatMap((table) => {
      const file = path.join(reportsFolder, `${table}.json`);
      return existsSync(file) ? [[table, JSON.parse(readFileSync(file, "utf8")) as ReportedRow[]]] : [];
    }),
  );
}

function main([argument]: string[]): void {
  const held = JSON.parse(readFileSync(listFile, "utf8")) as Held;
  if (argument === "--add") {
    writeFileSync(listFile, `${JSON.stringify(withHeld(held, readReported()), undefined, 2)}\n`);
    return;
  }
  if (argument === undefined) throw new Error("usage: held.js --add, or held.js REPORT");
  const failures = lost(held, readReported());
  const assertionResults = failures.map(({ name, reason }) => ({
    status: "failed",
    fullName: name,
    failureMessages: [`held before (test/support/acceptance/held.json), now: ${reason}`],
  }));
  const status = failures.length === 0 ? "passed" : "failed";
  writeFileSync(argument, JSON.stringify({ testResults: [{ name: "acceptance rows", status, assertionResults }] }));
  const count = Object.values(held).reduce((sum, ids) => sum + ids.length, 0);
  console.log(`acceptance rows held before: ${count}, of them not proved any more: ${failures.length}`);
  if (failures.length > 0) process.exitCode = 1;
}

if (require.main === module) main(process.argv.slice(2));
