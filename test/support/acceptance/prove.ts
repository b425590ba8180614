/** Rows of the table of attacks: written down whether they hold or not, so that the report shows what was seen. */
import { expect } from "vitest";
import { report, type Observation } from "./report.js";

/** Writes the row down, whether it holds or not, and then fails the test if it does not. */
export function prove(row: Omit<Observation, "table" | "pass" | "seconds">, started: number, pass: boolean): void {
  report({ table: "attack", ...row, pass, seconds: (Date.now() - started) / 1000 });
  expect(pass, `${row.id}: ${row.observed}`).toBe(true);
}

/**
 * Writes down a row that is known not to hold on this image, or only in part. The test goes on, and the table shows the
 * row in red. Fails the test as soon as the row does hold, so that the row is then reported by `prove`.
 */
export function admit(row: Omit<Observation, "table" | "pass" | "seconds">, started: number, holds: boolean): void {
  report({ table: "attack", ...row, pass: holds, seconds: (Date.now() - started) / 1000 });
  expect(holds, `${row.id} holds now: make it a proof`).toBe(false);
}
