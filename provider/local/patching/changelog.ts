/** Vulnerabilities in Debian's changelogs: https://www.debian.org/doc/debian-policy/ch-source.html#s-dpkgchangelog */

/** A vulnerability and the first version of a source package that is not affected. */
export interface Advisory {
  /** Source package. */
  package: string;
  /** CVE identifier. */
  id: string;
  fixedVersion: string;
}

/**
 * The vulnerabilities that are fixed according to a changelog. One that several entries name counts as fixed by the
 * newest of them, because the earlier fix was incomplete.
 */
export function advisoriesOf(changelog: string): Advisory[] {
  const found = new Map<string, Advisory>();
  let entry: { package: string; fixedVersion: string } | undefined;
  for (const line of changelog.split("\n")) {
    const head = /^([a-z0-9][a-z0-9+.-]+) \(([^)\s]+)\) [^;]*;/.exec(line);
    if (head) entry = { package: head[1]!, fixedVersion: head[2]! };
    if (entry === undefined || !line.startsWith(" ")) continue;
    for (const [id] of line.matchAll(/CVE-\d{4}-\d{4,}/g)) if (!found.has(id)) found.set(id, { ...entry, id });
  }
  return [...found.values()];
}
