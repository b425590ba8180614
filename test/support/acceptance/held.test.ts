import { readFileSync } from "node:fs";
import { describe, expect, it } from "vitest";
import { lost, withHeld, type Held } from "./held.js";
import { readRows, tables } from "./report.js";
import type { ReportedRow } from "./tables.js";

const row = (id: string, pass: boolean | null, reason?: string): ReportedRow => ({
  ...{ id, title: "one byte forged", expected: "no boot", control: null, seconds: 1, evidence: null },
  ...{ pass, observed: pass === false ? "it boots" : null },
  ...(reason === undefined ? {} : { reason }),
});

describe("lost", () => {
  it.each<[string, ReportedRow[], string[]]>([
    ["holds", [row("V3", true)], []],
    ["does not hold", [row("V3", false)], ["does not hold: it boots"]],
    [
      "is not proved",
      [row("V3", null, "not proved yet: part host was not run")],
      ["not proved yet: part host was not run"],
    ],
    ["is not in the table", [row("V4", true)], ["the table has no such row"]],
  ])("a row that %s", (_name, rows, reasons) => {
    expect(lost({ attack: ["V3"] }, { attack: rows }).map(({ reason }) => reason)).toEqual(reasons);
  });

  it("a table that was not written holds nothing", () => {
    expect(lost({ attack: ["V3"] }, {})).toHaveLength(1);
  });
});

describe("withHeld", () => {
  it("adds what holds, in the table's order, and takes nothing off", () => {
    const reported = { attack: [row("V1", true), row("V2", false), row("V3", null), row("V4", true)] };
    expect(withHeld({ attack: ["V3", "V9"] }, reported)).toMatchObject({ attack: ["V1", "V3", "V4", "V9"] });
  });
});

describe("the list", () => {
  const held = JSON.parse(readFileSync("test/support/acceptance/held.json", "utf8")) as Held;
  it.each(tables)("names rows of %s that there are and that have a test, each once", (table) => {
    const ids = held[table] ?? [];
    expect(new Set(ids).size).toBe(ids.length);
    const rows = readRows(table)
      .filter(({ notRun }) => notRun === undefined)
      .map(({ id }) => id);
    expect(rows).toEqual(expect.arrayContaining(ids));
  });
});
