/** Programs and files of this machine that an operation needs, checked before it makes anything. */
import { access, constants } from "node:fs/promises";
import { delimiter, isAbsolute, join } from "node:path";

/** Debian package of each program or file. */
const packages = {
  "apt-get": "apt",
  "docker-registry": "docker-registry",
  "dpkg-deb": "dpkg",
  mmdebstrap: "mmdebstrap",
  openssl: "openssl",
  "qemu-img": "qemu-utils",
  "qemu-system-x86_64": "qemu-system-x86",
  swtpm: "swtpm",
  vulndb: undefined,
  "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd": "ovmf",
  "/usr/share/distro-info/debian.csv": "distro-info-data",
} as const;

export type Prerequisite = keyof typeof packages;

/** Something that an operation needs is not on this machine. */
export class MissingPrerequisiteError extends Error {
  override readonly name = "MissingPrerequisiteError";
}

/**
 * Returns when all are there.
 *
 * @param what needs them, as the subject of a sentence: `a state disk`
 * @param path default: PATH, and where Debian has its programs
 * @throws MissingPrerequisiteError that names those that are missing, and how they are installed.
 */
export async function requirePrograms(what: string, names: Prerequisite[], path = searchPath()): Promise<void> {
  const folders = path.split(delimiter).filter((folder) => folder !== "");
  const missing: Prerequisite[] = [];
  for (const name of names) {
    const places = isAbsolute(name) ? [name] : folders.map((folder) => join(folder, name));
    const mode = isAbsolute(name) ? constants.R_OK : constants.X_OK;
    const found = await Promise.all(
      places.map((place) =>
        access(place, mode).then(
          () => true,
          () => false,
        ),
      ),
    );
    if (!found.includes(true)) missing.push(name);
  }
  if (missing.length === 0) return;
  const debianPackages = [...new Set(missing.flatMap((name) => packages[name] ?? []))];
  const ways = [
    ...(debianPackages.length > 0 ? [`sudo apt-get install ${debianPackages.join(" ")}`] : []),
    ...(missing.includes("vulndb")
      ? ["`palisade patch-tools` builds vulndb and says which folder belongs on PATH"]
      : []),
  ];
  throw new MissingPrerequisiteError(
    `${what} needs ${missing.join(", ")}, which this machine lacks: ${ways.join("; ")}. Nothing was made`,
  );
}

function searchPath(): string {
  return [process.env["PATH"] ?? "", "/usr/sbin", "/usr/bin", "/sbin", "/bin"].join(delimiter);
}
