/** The effect of a patch on each vulnerability: https://github.com/openvex/spec/blob/main/OPENVEX-SPEC.md */
import { createHash } from "node:crypto";
import { hexOf } from "../registry/digest.js";
import { fixable, type Scan, type Vulnerability } from "./scan.js";

/** As the specification and cosign call it. */
export const openVexType = "https://openvex.dev/ns";

export interface VexDocument {
  "@context": string;
  "@id": string;
  author: string;
  timestamp: string;
  version: number;
  statements: {
    vulnerability: { name: string };
    products: { "@id": string; hashes: { "sha-256": string }; subcomponents: { "@id": string }[] }[];
    status: "fixed" | "affected";
    /** Of what is affected. */
    action_statement?: string;
  }[];
}

/**
 * `fixed` are vulnerabilities that the original has and the patched image does not have, `affected` those that the
 * patched image has and no version fixes. Both images are scanned, so what an earlier patch of the original has fixed
 * is included.
 *
 * @param place server/repository
 */
export function openVex(before: Scan, after: Scan, place: string, digest: string, timestamp: string): VexDocument {
  const left = new Set(after.vulnerabilities.map(pair));
  const fixed = fixable(before).filter((one) => !left.has(pair(one)));
  const versions = new Map(after.packages.map(({ name, version }) => [name, version]));
  const product = { "@id": packageUrl(place, digest), hashes: { "sha-256": hexOf(digest) } };
  const components = (packages: Set<string>) =>
    [...packages].sort().map((name) => ({ "@id": debianPackageUrl(name, versions.get(name)) }));
  const statementsOf = (found: Vulnerability[]) =>
    [...packagesById(found)].sort().map(([name, packages]) => ({
      vulnerability: { name },
      products: [{ ...product, subcomponents: components(packages) }],
    }));
  const statements: VexDocument["statements"] = [
    ...statementsOf(fixed).map((one) => ({ ...one, status: "fixed" as const })),
    ...statementsOf(after.vulnerabilities).map((one) => ({
      ...one,
      status: "affected" as const,
      action_statement: "No version of the package fixes it yet.",
    })),
  ];
  const id = createHash("sha256").update(JSON.stringify(statements)).digest("hex");
  return {
    "@context": "https://openvex.dev/ns/v0.2.0",
    "@id": `https://openvex.dev/docs/public/vex-${id}`,
    author: "Palisade",
    timestamp,
    version: 1,
    statements,
  };
}

/**
 * https://github.com/package-url/purl-spec/blob/main/types-doc/deb-definition.md, without a version that is not known.
 */
function debianPackageUrl(name: string, version: string | undefined): string {
  return `pkg:deb/debian/${encodeURIComponent(name)}${version ? `@${encodeURIComponent(version)}` : ""}`;
}

const packageName = (url: string) => decodeURIComponent(/^pkg:deb\/debian\/([^@?#]+)/.exec(url)?.[1] ?? "");

/** https://github.com/package-url/purl-spec/blob/main/types-doc/oci-definition.md */
export function packageUrl(place: string, digest: string): string {
  const name = place.split("/").at(-1)!;
  return `pkg:oci/${name}@${encodeURIComponent(digest)}?repository_url=${encodeURIComponent(place)}`;
}

/**
 * The number of fixed pairs of vulnerability and package in a document, and the affected pairs, as `<vulnerability>
 * <package>`.
 */
export function summaryOf({ statements }: VexDocument): { fixed: number; affected: string[] } {
  const pairs = (status: string) =>
    statements
      .filter((one) => one.status === status)
      .flatMap(({ vulnerability, products }) =>
        products.flatMap(({ subcomponents }) =>
          subcomponents.map((one) => `${vulnerability.name} ${packageName(one["@id"])}`),
        ),
      );
  return { fixed: pairs("fixed").length, affected: pairs("affected").sort() };
}

const pair = ({ id, package: name }: Vulnerability) => `${id} ${name}`;

function packagesById(found: Vulnerability[]): Map<string, Set<string>> {
  const packages = new Map<string, Set<string>>();
  for (const { id, package: name } of found) packages.set(id, (packages.get(id) ?? new Set()).add(name));
  return packages;
}
