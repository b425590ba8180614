/** The programs that patches need. */
import { access, constants } from "node:fs/promises";
import { delimiter, isAbsolute, join } from "node:path";
import { PropertyError } from "../../backends/errors.js";

/** Folder of Debian that is not in the PATH of many users. */
export const runtime = "/usr/sbin/runc";

/** By name; what Debian has is told by its package. */
const programs = {
  trivy: undefined,
  copa: undefined,
  buildkitd: undefined,
  "dpkg-deb": "dpkg",
  [runtime]: "runc",
} as const;

type Program = keyof typeof programs;

/**
 * The programs' files.
 *
 * @param path default: PATH.
 * @throws PropertyError that names those that this machine lacks, and how to get them.
 */
export async function findPrograms(path = process.env["PATH"] ?? ""): Promise<Record<Program, string>> {
  const folders = path.split(delimiter).filter((folder) => folder !== "");
  const found: Partial<Record<Program, string>> = {};
  const lacking: Program[] = [];
  for (const program of Object.keys(programs) as Program[]) {
    const files = isAbsolute(program) ? [program] : folders.map((folder) => join(folder, program));
    const file = await firstExecutable(files);
    if (file === undefined) lacking.push(program);
    else found[program] = file;
  }
  if (lacking.length === 0) return found as Record<Program, string>;
  throw new PropertyError([{ property: "digest", reason: howToGet(lacking) }]);
}

function howToGet(lacking: Program[]): string {
  const packages = lacking.map((program) => programs[program]).filter((name) => name !== undefined);
  const built = lacking.filter((program) => programs[program] === undefined);
  const ways = [
    ...(packages.length > 0 ? [`sudo apt-get install ${packages.join(" ")}`] : []),
    ...(built.length > 0
      ? [`\`palisade patch-tools\` builds ${built.join(", ")} and says which folder belongs on PATH`]
      : []),
  ];
  return `patching needs ${lacking.join(", ")} on PATH, which this machine lacks: ${ways.join("; ")}`;
}

async function firstExecutable(files: string[]): Promise<string | undefined> {
  for (const file of files) {
    const isThere = await access(file, constants.X_OK).then(
      () => true,
      () => false,
    );
    if (isThere) return file;
  }
  return undefined;
}
