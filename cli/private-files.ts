/**
 * Files that only the operator can read. They are made once and never overwritten, even when several processes make
 * them.
 */
import { randomBytes } from "node:crypto";
import { chmodSync, existsSync, linkSync, mkdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import path from "node:path";

/** Makes a folder with mode 0700, or checks that an existing one is not open to others. */
export function ensurePrivateDirectory(directory: string): void {
  mkdirSync(directory, { recursive: true, mode: 0o700 });
  refuseOpenMode(directory, "0700");
}

/**
 * Returns the content of a file of mode 0600; makes the file first when it does not exist.
 *
 * The file appears whole or not at all: it is linked into place from a temporary one, and the link fails when another
 * process was faster; then the content of that process counts.
 *
 * @throws Error when the file is open to the group or to others.
 */
export async function ensurePrivateFile(file: string, make: () => string | Promise<string>): Promise<string> {
  if (!existsSync(file)) linkIntoPlace(file, await make());
  refuseOpenMode(file, "0600");
  return readFileSync(file, "utf8");
}

/** Returns the content of a public file, e.g. a certificate; makes the file first when it does not exist. */
export async function ensurePublicFile(file: string, make: () => string | Promise<string>): Promise<string> {
  if (!existsSync(file)) linkIntoPlace(file, await make());
  return readFileSync(file, "utf8");
}

function linkIntoPlace(file: string, content: string): void {
  const temporary = path.join(path.dirname(file), `.${path.basename(file)}.${randomBytes(6).toString("hex")}`);
  writeFileSync(temporary, content, { mode: 0o600, flag: "wx" });
  try {
    chmodSync(temporary, 0o600);
    linkSync(temporary, file);
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== "EEXIST") throw error;
  } finally {
    rmSync(temporary, { force: true });
  }
}

function refuseOpenMode(file: string, wanted: string): void {
  const mode = statSync(file).mode & 0o777;
  if ((mode & 0o077) !== 0) {
    throw new Error(
      `${file}: mode is 0${mode.toString(8)}, so others can read it; expected ${wanted}. ` +
        `Make sure that nobody has copied it, then run: chmod ${wanted} ${file}`,
    );
  }
}
