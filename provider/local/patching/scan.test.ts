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
  expect(scan.packages).toContainEqual({ name: "libkrb5-3", source: "krb5", version: "1.21.3-5+deb13u1" });
  expect(fixable(scan).map(({ package: name }) => name)).toContain("libkrb5-3");
});

it("tells versions as dpkg does, which Trivy's own package URLs show", () => {
  const { Results } = JSON.parse(recorded) as {
    Results: { Packages?: { Name: string; Identifier: { PURL: string } }[] }[];
  };
  const urls = Results.flatMap(({ Packages }) => Packages ?? []).map(({ Name, Identifier }) => [
    Name,
    decodeURIComponent(/@([^?]+)/.exec(Identifier.PURL)![1]!),
  ]);
  expect(urls.length).toBe(3);
  expect(parseReport(recorded, "image").packages.map(({ name, version }) => [name, version])).toEqual(urls);
});

it.each([
  [{ Epoch: 1, Version: "4.17.4", Release: "2" }, "1:4.17.4-2"],
  [{ Version: "3.0.0" }, "3.0.0"],
  [{ Version: "1.35+dfsg", Release: "3.1" }, "1.35+dfsg-3.1"],
  [{ Epoch: 0, Version: "2.41~rc1", Release: "" }, "2.41~rc1"],
])("%j is %s", (fields, version) => {
  const report = {
    Metadata: { OS: { Family: "debian", Name: "13.8" } },
    Results: [{ Class: "os-pkgs", Packages: [{ Name: "a", ...fields }] }],
  };
  expect(parseReport(JSON.stringify(report), "image").packages[0]!.version).toBe(version);
});

it.each([
  ["null", /expected Object, found null/],
  ["[]", /expected Object, found a list/],
  ['{"Results":{}}', /Results: expected Array, found an object/],
  ['{"Results":[{"Packages":[null]}]}', /Results\.0\.Packages\.0: expected Object, found null/],
  ["", /is empty/],
  ["<html>", /is HTML/],
])("says where %s does not fit", (report, reason) => {
  expect(() => parseReport(report, "r/web")).toThrow(/^digest: the scan of r\/web: /);
  expect(() => parseReport(report, "r/web")).toThrow(reason);
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
