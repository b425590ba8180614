import { expect, it } from "vitest";
import type { Scan, Vulnerability } from "./scan.js";
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

it("does not call fixed what is still there", () => {
  const { statements } = openVex(before, before, place, digest, "2026-11-24T00:00:00Z");
  expect(statements.filter(({ status }) => status === "fixed")).toEqual([]);
});
