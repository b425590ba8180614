/** Scans of images by Trivy, offline. https://trivy.dev/docs/latest/configuration/reporting/#json */
import { mkdir, readFile, rm, symlink } from "node:fs/promises";
import { join } from "node:path";
import { run } from "../ownership/command.js";
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
  packages: { name: string; source: string; version: string }[];
  vulnerabilities: Vulnerability[];
}

interface Report {
  Metadata?: { OS?: { Family?: string; Name?: string } };
  Results?: {
    Class?: string;
    Packages?: { Name?: string; Version?: string; SrcName?: string }[];
    Vulnerabilities?: {
      VulnerabilityID: string;
      PkgName: string;
      InstalledVersion: string;
      FixedVersion?: string;
    }[];
  }[];
}

/**
 * Reads a report of Trivy.
 *
 * @throws when it holds no list of the operating system's packages: nothing found would say nothing.
 */
export function parseReport(text: string, image: string): Scan {
  const { Metadata, Results } = JSON.parse(text) as Report;
  const results = (Results ?? []).filter((one) => one.Class === "os-pkgs");
  const packages = results.flatMap((one) => one.Packages ?? []);
  const { Family: family, Name: version } = Metadata?.OS ?? {};
  if (packages.length === 0 || family === undefined || version === undefined) {
    throw new Error(`digest: the scan of ${image} found no packages of an operating system, so it says nothing`);
  }
  return {
    family,
    version,
    packages: packages.map(({ Name, Version, SrcName }) => ({
      name: Name ?? "",
      source: SrcName ?? Name ?? "",
      version: Version ?? "",
    })),
    vulnerabilities: results
      .flatMap((one) => one.Vulnerabilities ?? [])
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
 * @param report gets Trivy's report; must be in a folder that is there.
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
    // The database alone; what Trivy keeps of images it keeps for this scan only.
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
