import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { parseReport, type Scan, type Vulnerability } from "./scan.js";
import { openVex, packageUrl, summaryOf } from "./vex.js";

const place = "127.0.0.1:5000/web/nginx";
const digest = `sha256:${"ab".repeat(32)}`;
const found = (id: string, name: string, fixedVersion?: string): Vulnerability => ({
  ...{ id, package: name, installedVersion: "1" },
  ...(fixedVersion === undefined ? {} : { fixedVersion }),
});
const scan = (...vulnerabilities: Vulnerability[]): Scan => ({
  ...{ family: "debian", version: "13.8", vulnerabilities },
  packages: ["nginx", "nginx-common", "tar"].map((name) => ({ name, source: name, version: "1:2" })),
});
const before = scan(
  ...[found("CVE-2026-2", "nginx", "2"), found("CVE-2026-1", "nginx-common", "2"), found("CVE-2026-1", "nginx", "2")],
  found("CVE-2005-1", "tar"),
);

it("says what was fixed in which package of the image, and what is left", () => {
  const document = openVex(before, scan(found("CVE-2005-1", "tar")), place, digest, "2026-11-24T00:00:00Z");
  expect(document.statements.map(({ status, vulnerability: { name } }) => `${status} ${name}`)).toEqual([
    ...["fixed CVE-2026-1", "fixed CVE-2026-2"],
    "affected CVE-2005-1",
  ]);
  const [product] = document.statements[0]!.products;
  expect(product).toEqual({
    "@id": packageUrl(place, digest),
    hashes: { "sha-256": "ab".repeat(32) },
    subcomponents: [{ "@id": "pkg:deb/debian/nginx@1%3A2" }, { "@id": "pkg:deb/debian/nginx-common@1%3A2" }],
  });
  expect(product!["@id"]).toBe(
    `pkg:oci/nginx@sha256%3A${"ab".repeat(32)}?repository_url=127.0.0.1%3A5000%2Fweb%2Fnginx`,
  );
  expect(summaryOf(document)).toEqual({ fixed: 3, affected: ["CVE-2005-1 tar"] });
});

it("writes packages as package URLs of the whole version", () => {
  const recorded = parseReport(readFileSync(join(__dirname, "testdata/trivy-report.json"), "utf8"), "image");
  const document = openVex(recorded, recorded, place, digest, "2026-11-24T00:00:00Z");
  const urls = document.statements.flatMap(({ products }) => products[0]!.subcomponents.map((one) => one["@id"]));
  expect(urls).toContain("pkg:deb/debian/libkrb5-3@1.21.3-5%2Bdeb13u1");
  const other = {
    ...scan(found("CVE-2026-3", "libstdc++6")),
    packages: [{ name: "libstdc++6", source: "", version: "" }],
  };
  const { statements } = openVex(other, other, place, digest, "2026-11-24T00:00:00Z");
  expect(statements[0]!.products[0]!.subcomponents).toEqual([{ "@id": "pkg:deb/debian/libstdc%2B%2B6" }]);
  expect(summaryOf({ ...document, statements }).affected).toEqual(["CVE-2026-3 libstdc++6"]);
});

it("does not call fixed what is still there", () => {
  const { statements } = openVex(before, before, place, digest, "2026-11-24T00:00:00Z");
  expect(statements.filter(({ status }) => status === "fixed")).toEqual([]);
});
