/** Vulnerability databases: folders as Trivy reads them, `db/trivy.db` and `db/metadata.json`. */
import { createHash } from "node:crypto";
import { join } from "node:path";
import * as v from "valibot";
import { decode, object } from "../../../shared/decode.js";
import { readFileIfPresent } from "../../system/atomic-file.js";
import { PropertyError } from "../../backends/errors.js";

/** Description of a database that was made here: `palisade.json`. */
export interface DatabaseDescription {
  /** sha256:<hex> over its content; the same advisories give the same digest. */
  digest: string;
  suite: string;
  /** Release of Debian, e.g. `13`. */
  release: string;
  /** The packages that were requested. */
  packages: string[];
  /** Source packages whose advisories it has. */
  covers: string[];
  advisories: number;
  /** ISO 8601. */
  builtAt: string;
}

/** A database as scans use it. */
export interface Database {
  directory: string;
  /** sha256:<hex> */
  digest: string;
  /** Absent for one that was made elsewhere, e.g. Trivy's own: it knows all packages. */
  description?: DatabaseDescription;
}

/** Where `palisade vulndb build` puts it. */
export function defaultDatabaseDirectory(cacheDirectory: string): string {
  return join(cacheDirectory, "vulndb");
}

export const descriptionFile = "palisade.json";

const descriptionSchema = object({
  digest: v.string(),
  suite: v.string(),
  release: v.string(),
  packages: v.array(v.string()),
  covers: v.array(v.string()),
  advisories: v.number(),
  builtAt: v.string(),
}) satisfies v.GenericSchema<unknown, DatabaseDescription>;

/** Finds a database; reads small files only. Throws a PropertyError when there is none. */
export async function findDatabase(directory: string): Promise<Database> {
  const metadata = await readFileIfPresent(join(directory, "db", "metadata.json"));
  if (metadata === undefined) {
    const reason = `${directory} holds no vulnerability database; make one with: palisade vulndb build PACKAGE...`;
    throw new PropertyError([{ property: "database", reason }]);
  }
  const own = await readFileIfPresent(join(directory, descriptionFile));
  if (own !== undefined) {
    const description = decode(descriptionSchema, own, join(directory, descriptionFile));
    return { directory, digest: description.digest, description };
  }
  return { directory, digest: `sha256:${createHash("sha256").update(metadata).digest("hex")}` };
}

/**
 * Refuses a database without the packages of an image: a scan that finds nothing in it would prove nothing.
 *
 * @throws with the packages that it lacks.
 */
export function requireCoverage(
  database: Database,
  image: { version: string; packages: { name: string; source: string }[] },
): void {
  const { description, directory } = database;
  if (description === undefined) return;
  const release = image.version.split(".")[0]!;
  if (description.release !== release) {
    throw new Error(
      `database: ${directory} is of Debian ${description.release}, the image is Debian ${image.version}; ` +
        "make one of the image's suite: palisade vulndb build --suite SUITE PACKAGE...",
    );
  }
  const covered = new Set(description.covers);
  const lacking = image.packages.filter(({ source }) => !covered.has(source)).map(({ name }) => name);
  if (lacking.length > 0) {
    throw new Error(
      `database: ${directory} knows nothing of ${lacking.length} packages of the image, ${lacking.slice(0, 10).join(", ")}; ` +
        `make it with them: palisade vulndb build --suite ${description.suite} PACKAGE...`,
    );
  }
}
