/** Text in columns. */

/** Indented rows under a heading; each column is as wide as its widest cell. */
export function table(heading: string[], rows: string[][], indent = ""): string {
  const all = [heading, ...rows];
  const widths = heading.map((_, column) => Math.max(...all.map((row) => (row[column] ?? "").length)));
  return all
    .map((row) => `${indent}${row.map((cell, column) => cell.padEnd(widths[column] ?? 0)).join("  ")}`.trimEnd())
    .map((line) => `${line}\n`)
    .join("");
}

/** Text from a host, without the control sequences that a terminal would obey. */
export function printable(text: string): string {
  return (
    text
      // Escape sequences: CSI, OSC and the short ones.

      .replace(/\u001b(?:\[[0-9:;<=>?]*[ -/]*[@-~]|\][^\u0007\u001b]*(?:\u0007|\u001b\\)?|[ -/]*[0-~])/g, "")

      .replace(/[\u0000-\u0008\u000b-\u001f\u007f-\u009f]/g, "")
  );
}
