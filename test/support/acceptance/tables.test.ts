import { execFileSync } from "node:child_process";
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { readRows, report, tables, type RecordedObservation } from "./report.js";
import { assemble } from "./tables.js";

const row = { id: "V3", title: "one byte forged", expected: "no boot" };
const observation = (changes: Partial<RecordedObservation> = {}): RecordedObservation => ({
  table: "attack",
  id: "V3",
  observed: "no boot",
  control: "boots",
  pass: true,
  seconds: 2,
  evidence: "kernel: verification failed",
  subject: "now",
  ...changes,
});

describe("assemble", () => {
  it.each<[string, RecordedObservation[], boolean | null, string | undefined]>([
    ["no observation", [], null, "not run: the tests that observe this row were not run"],
    ["of other content", [observation({ subject: "before" })], null, "observed on other content only; run make e2e"],
    ["holds", [observation()], true, undefined],
    ["does not hold", [observation({ pass: false })], false, undefined],
    ["one part does not hold", [observation(), observation({ pass: false })], false, undefined],
    ["a part is missing", [observation({ missing: "IPv6" })], null, "not proved yet: IPv6"],
    ["missing does not hide a failure", [observation({ pass: false, missing: "IPv6" })], false, "not proved yet: IPv6"],
    ["old content does not count", [observation({ subject: "before", pass: false }), observation()], true, undefined],
  ])("%s", (_name, observations, pass, reason) => {
    const result = assemble(row, observations, "now");
    expect(result.pass).toBe(pass);
    expect(result.reason).toBe(reason);
    expect(result).toMatchObject(row);
  });

  it("gives the reason why a row has no test", () => {
    expect(assemble({ ...row, notRun: "there is no second disk" }, [], "now")).toMatchObject({
      pass: null,
      reason: "not run: there is no second disk",
    });
  });

  it("is not proved without a part that the row needs", () => {
    const needy = { ...row, needs: ["host"] };
    const elsewhere = observation({ part: "namespace" });
    expect(assemble(needy, [elsewhere], "now")).toMatchObject({
      pass: null,
      reason: "not proved yet: part host was not run",
    });
    expect(assemble(needy, [elsewhere, observation({ part: "host" })], "now").pass).toBe(true);
  });

  it("joins the parts", () => {
    expect(assemble(row, [observation(), observation({ observed: "halt", seconds: 3 })], "now")).toMatchObject({
      observed: "no boot; halt",
      seconds: 5,
    });
  });
});

describe("tables", () => {
  it.each(tables)("%s has rows with unique ids, titles and expectations", (table) => {
    const rows = readRows(table);
    expect(new Set(rows.map(({ id }) => id)).size).toBe(rows.length);
    for (const { id, title, expected } of rows) {
      expect(id).toMatch(/^[A-Z]{1,2}\d+$/);
      expect(title).not.toBe("");
      expect(expected).not.toBe("");
    }
  });
});

describe("test/README.md", () => {
  it("says what the letters of each table mean, and of no others", () => {
    const readme = readFileSync("test/README.md", "utf8");
    const explained = [...readme.matchAll(/^\| (\w+) \| ([A-Z]{1,2}) \| \S.*\|$/gm)].map(
      (line) => `${line[1]} ${line[2]}`,
    );
    const used = tables.flatMap((table) => readRows(table).map(({ id }) => `${table} ${id.replace(/\d+$/, "")}`));
    expect(explained.sort()).toEqual([...new Set(used)].sort());
  });

  it("names every layer", () => {
    const readme = readFileSync("test/README.md", "utf8");
    const named = [...readme.matchAll(/^\| \[(\w+)\]\(layers\/\1\)/gm)].map((line) => line[1]);
    expect(named.sort()).toEqual(readdirSync("test/layers").sort());
  });
});

describe("each row", () => {
  /** Everything that may name a row: tests, and what end-to-end tests share. */
  const texts = execFileSync("git", [
    "ls-files",
    "-co",
    "--exclude-standard",
    "--",
    "*.test.ts",
    "test/**/*.ts",
    "*_test.go",
  ])
    .toString()
    .split("\n")
    .filter((file) => file !== "" && !file.startsWith("test/support/acceptance/") && existsSync(file))
    .map((file) => readFileSync(file, "utf8"));
  /** Tables whose rows have the same names are distinguished by the name of the table in the file that reports. */
  const isReported = (table: string, id: string): boolean => {
    const clouds = (text: string) => /table: "clouds"|table = "clouds"/.test(text);
    return texts.some((text) => text.includes(`"${id}"`) && clouds(text) === (table === "clouds"));
  };
  const rows = tables.flatMap((table) => readRows(table).map((each) => ({ table, ...each })));

  it.each(rows.map(({ table, id, notRun }) => [table, id, notRun] as const))(
    "%s %s is observed by a test, or says why it is not",
    (table, id, notRun) => {
      expect(notRun === undefined, notRun ?? "no test reports it").toBe(isReported(table, id));
    },
  );
});

describe("report", () => {
  it("writes one file a part and refuses unknown rows", () => {
    const folder = mkdtempSync(path.join(tmpdir(), "palisade-rows-"));
    try {
      const { subject: _subject, ...given } = observation({ part: "forged byte" });
      report(given, folder);
      expect(readdirSync(path.join(folder, "attack"))).toEqual(["V3.forged-byte.json"]);
      const written = JSON.parse(readFileSync(path.join(folder, "attack", "V3.forged-byte.json"), "utf8"));
      expect(written).toMatchObject({ ...given, subject: expect.stringMatching(/^[0-9a-f]{64}$/) });
      expect(() => report({ ...given, id: "X99" }, folder)).toThrow('the table attack has no row "X99"');
    } finally {
      rmSync(folder, { recursive: true });
    }
  });
});
