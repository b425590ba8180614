/** Debian's releases and how long they get security support, from the package distro-info-data. */
import { readFileIfPresent } from "../../system/atomic-file.js";

export interface DebianRelease {
  /** E.g. `13`. */
  version: string;
  /** E.g. `trixie`. */
  series: string;
  /** Last day of security support, long-term support included, YYYY-MM-DD; undefined while none is set. */
  endOfLife: string | undefined;
}

export const releasesFile = "/usr/share/distro-info/debian.csv";

export function parseReleases(csv: string): DebianRelease[] {
  const [head, ...lines] = csv.trim().split("\n");
  const columns = head!.split(",");
  return lines.map((line) => {
    const cells = line.split(",");
    const cell = (name: string) => cells[columns.indexOf(name)] || undefined;
    return {
      version: cell("version") ?? "",
      series: cell("series") ?? "",
      endOfLife: cell("eol-lts") ?? cell("eol"),
    };
  });
}

/** @throws when this machine does not know Debian's releases. */
export async function debianReleases(file = releasesFile): Promise<DebianRelease[]> {
  const csv = await readFileIfPresent(file);
  if (csv === undefined) {
    throw new Error(
      `${file} is missing, which tells which Debian releases get security updates; install distro-info-data`,
    );
  }
  return parseReleases(csv);
}

/**
 * Refuses an operating system whose images cannot be patched.
 *
 * @param today YYYY-MM-DD
 * @throws with name and date when it gets no security updates any more, or is none that is known.
 */
export function requireSupported(
  system: { family: string; version: string },
  releases: DebianRelease[],
  today: string,
): void {
  const { family, version } = system;
  if (family !== "debian") {
    throw new Error(`digest: the image is ${family} ${version}; images of Debian can be patched, others not yet`);
  }
  const release = releases.find((one) => one.version === version.split(".")[0]);
  if (release === undefined) {
    throw new Error(
      `digest: the image is Debian ${version}, which ${releasesFile} does not know; update distro-info-data`,
    );
  }
  if (release.endOfLife !== undefined && release.endOfLife < today) {
    throw new Error(
      `digest: the image is Debian ${version} (${release.series}), which has had no security updates since ${release.endOfLife}; ` +
        "build it anew from a supported release",
    );
  }
}
