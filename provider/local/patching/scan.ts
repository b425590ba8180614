/** Scans of images by Trivy, offline. https://trivy.dev/docs/latest/configuration/reporting/#json */
import { mkdir, readFile, rm, symlink } from "node:fs/promises";
import { join } from "node:path";
import * as v from "valibot";
import { decode, object } from "../../../shared/decode.js";
import { run } from "../../system/command.js";
import type { Database } from "./database.js";
import type { ToolAccess } from "./tool-access.js";

export interface Vulnerability {
  /** E.g. `CVE-2026-1234`. */
  id: string;
  /** Binary package. */
  package: string;
  installedVersion: string;
  /** Absent while no version fixes it. */
  fixedVersion?: string;
}

export interface Scan {
  /** E.g. `debian`. */
  family: string;
  /** E.g. `13.8`. */
  version: string;
  /** Versions in the form of dpkg: [epoch:]upstream[-revision]. */
  packages: { name: string; source: string; version: string }[];
  vulnerabilities: Vulnerability[];
}

const packageSchema = object({
  Name: v.string(),
  SrcName: v.nullish(v.string()),
  // Of 1:2.3-4 Trivy's epoch is 1, its version 2.3, its release 4.
  Epoch: v.nullish(v.number(), 0),
  Version: v.nullish(v.string(), ""),
  Release: v.nullish(v.string(), ""),
});
const reportSchema = object({
  Metadata: v.nullish(
    object({ OS: v.nullish(object({ Family: v.nullish(v.string()), Name: v.nullish(v.string()) })) }),
  ),
  Results: v.nullish(
    v.array(
      object({
        Class: v.nullish(v.string()),
        Packages: v.nullish(v.array(packageSchema), []),
        Vulnerabilities: v.nullish(
          v.array(
            object({
              VulnerabilityID: v.string(),
              PkgName: v.string(),
              InstalledVersion: v.nullish(v.string(), ""),
              FixedVersion: v.nullish(v.string(), ""),
            }),
          ),
          [],
        ),
      }),
    ),
    [],
  ),
});

/**
 * Reads a report of Trivy.
 *
 * @throws when it holds no list of the operating system's packages: then finding nothing proves nothing.
 */
export function parseReport(text: string, image: string): Scan {
  const { Metadata, Results } = decode(reportSchema, text, `digest: the scan of ${image}`);
  const results = Results.filter((one) => one.Class === "os-pkgs");
  const packages = results.flatMap((one) => one.Packages);
  const { Family: family, Name: version } = Metadata?.OS ?? {};
  if (packages.length === 0 || family == null || version == null) {
    throw new Error(`digest: the scan of ${image} found no packages of an operating system, so it says nothing`);
  }
  return {
    family,
    version,
    packages: packages.map(({ Name, SrcName, Epoch, Version, Release }) => ({
      name: Name,
      source: SrcName ?? Name,
      version: `${Epoch === 0 ? "" : `${Epoch}:`}${Version}${Release === "" ? "" : `-${Release}`}`,
    })),
    vulnerabilities: results
      .flatMap((one) => one.Vulnerabilities)
      .map(({ VulnerabilityID: id, PkgName, InstalledVersion: installedVersion, FixedVersion: fixedVersion }) => ({
        ...{ id, package: PkgName, installedVersion },
        ...(fixedVersion ? { fixedVersion } : {}),
      })),
  };
}

/** The vulnerabilities that some version fixes. */
export const fixable = (scan: Scan) => scan.vulnerabilities.filter(({ fixedVersion }) => fixedVersion !== undefined);

/**
 * Scans an image's packages by digest.
 *
 * @param report gets Trivy's report; its folder must exist.
 * @throws with Trivy's last lines when it fails.
 */
export async function scanImage(
  reference: string,
  database: Database,
  access: ToolAccess,
  report: string,
  signal: AbortSignal,
): Promise<Scan> {
  const cache = `${report}.cache`;
  await rm(cache, { recursive: true, force: true });
  await mkdir(cache);
  try {
    // Only the database is shared: what Trivy caches of images is kept for this scan only.
    await symlink(join(database.directory, "db"), join(cache, "db"));
    await run(
      "trivy",
      [
        ...[
          "image",
          "--quiet",
          "--image-src",
          "remote",
          "--cache-dir",
          cache,
          "--scanners",
          "vuln",
          "--pkg-types",
          "os",
        ],
        ...["--skip-db-update", "--skip-java-db-update", "--skip-check-update", "--skip-vex-repo-update"],
        ...["--skip-version-check", "--disable-telemetry", "--offline-scan", "--list-all-pkgs"],
        ...["--format", "json", "--output", report, reference],
      ],
      { environment: access.environment, signal, diesWithUs: true },
    );
    return parseReport(await readFile(report, "utf8"), reference);
  } finally {
    await rm(cache, { recursive: true, force: true });
  }
}
