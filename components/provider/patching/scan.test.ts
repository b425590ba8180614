import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { fixable, parseReport } from "./scan.js";

/** A report of Trivy 0.70, shortened to three packages. */
const recorded = readFileSync(join(__dirname, "testdata/trivy-report.json"), "utf8");

it("reads the system, its packages and what is known of them", () => {
  const scan = parseReport(recorded, "image");
  expect([scan.family, scan.version]).toEqual(["debian", "13.8"]);
  expect(scan.packages).toHaveLength(3);
  expect(scan.packages).toContainEqual({ name: "libkrb5-3", source: "krb5", version: expect.any(String) as string });
  expect(fixable(scan).map(({ package: name }) => name)).toContain("libkrb5-3");
});

it("does not count what no version fixes", () => {
  const report = JSON.parse(recorded) as { Results: { Vulnerabilities?: { FixedVersion?: string }[] }[] };
  for (const one of report.Results.flatMap(({ Vulnerabilities }) => Vulnerabilities ?? [])) one.FixedVersion = "";
  const scan = parseReport(JSON.stringify(report), "image");
  expect(scan.vulnerabilities.length).toBeGreaterThan(0);
  expect(fixable(scan)).toEqual([]);
});

it.each(["{}", '{"Metadata":{"OS":{"Family":"debian","Name":"13"}},"Results":[{"Class":"lang-pkgs"}]}'])(
  "takes nothing for a result that holds no packages: %s",
  (report) => expect(() => parseReport(report, "image")).toThrow(/the scan of image found no packages/),
);
