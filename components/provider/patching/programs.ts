/** The programs that patches need. */
import { access, constants } from "node:fs/promises";
import { delimiter, isAbsolute, join } from "node:path";

/** Where Debian puts it, outside of many users' PATH. */
export const runtime = "/usr/sbin/runc";

const programs = ["trivy", "copa", "buildkitd", "dpkg-deb", runtime];

/** @throws with the names of those that this machine lacks. */
export async function demandPrograms(path = process.env["PATH"] ?? ""): Promise<void> {
  const folders = path.split(delimiter);
  const lacking: string[] = [];
  for (const program of programs) {
    const files = isAbsolute(program) ? [program] : folders.map((folder) => join(folder, program));
    const found = await Promise.all(
      files.map((file) =>
        access(file, constants.X_OK).then(
          () => true,
          () => false,
        ),
      ),
    );
    if (!found.includes(true)) lacking.push(program);
  }
  if (lacking.length === 0) return;
  throw new Error(
    `patching needs ${lacking.join(", ")} on PATH; in a clone of Palisade, make patch-tools builds what Debian lacks`,
  );
}
