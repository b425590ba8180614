/**
 * Makes a vulnerability database from Debian's own data, with nothing but the package mirror: the changelogs in the
 * packages of a suite name the vulnerabilities that each version fixes. Vulnerabilities that no version fixes are not
 * in them.
 */
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { gunzip } from "node:zlib";
import { isAbsent } from "../../system/atomic-file.js";
import { run } from "../../system/command.js";
import { withLock } from "../../system/lock.js";
import { requirePrograms } from "../../system/programs.js";
import { advisoriesOf, type Advisory } from "./changelog.js";
import { descriptionFile, type DatabaseDescription } from "./database.js";
import { debianReleases } from "./debian-releases.js";
import { SuiteApt, type SuitePackage } from "./suite-apt.js";

export interface DatabaseRequest {
  suite: string;
  /** Binary packages. Their dependencies, the essential packages and apt are added. */
  packages: string[];
}

/**
 * Makes the database of a package set in `directory`; an older one is replaced.
 *
 * @param cacheDirectory keeps apt's lists.
 * @throws when a package is not in the suite or one has no changelog.
 */
export async function buildDatabase(
  request: DatabaseRequest,
  directory: string,
  cacheDirectory: string,
  status: (message: string) => void,
  signal?: AbortSignal,
): Promise<DatabaseDescription> {
  const { suite } = request;
  await requirePrograms("a vulnerability database", ["apt-get", "dpkg-deb", "vulndb"]);
  const release = (await debianReleases()).find(({ series }) => series === suite)?.version;
  if (release === undefined)
    throw new Error(`suite: ${JSON.stringify(suite)} is no release of Debian that is known here`);
  const state = join(cacheDirectory, "apt", suite);
  const advisories = await withLock(`${state}.lock`, signal, async () => {
    const apt = new SuiteApt(state, suite, signal);
    status(`reading the package lists of ${suite}`);
    await apt.update();
    const packages = await apt.packages(await apt.closure([...request.packages, "apt"]));
    const work = await mkdtemp(join(state, "changelogs-"));
    try {
      return await readChangelogs(apt, packages, work, status);
    } finally {
      await rm(work, { recursive: true, force: true });
    }
  });
  return writeDatabase(directory, { ...request, release, ...advisories }, signal);
}

interface ChangelogContents {
  covers: string[];
  advisories: Advisory[];
}

/** One package of each source is enough; the smallest that has the changelog in it. */
async function readChangelogs(
  apt: SuiteApt,
  packages: SuitePackage[],
  work: string,
  status: (message: string) => void,
): Promise<ChangelogContents> {
  const bySource = new Map<string, SuitePackage[]>();
  for (const one of packages.sort((a, b) => a.size - b.size)) {
    bySource.set(one.source, [...(bySource.get(one.source) ?? []), one]);
  }
  const advisories: Advisory[] = [];
  const covers: string[] = [];
  let pending = [...bySource.entries()];
  while (pending.length > 0) {
    const chosen = pending.map(([, [first]]) => first!);
    status(
      `fetching ${chosen.length} packages, ${(chosen.reduce((sum, { size }) => sum + size, 0) / 1e6).toFixed(1)} MB`,
    );
    await apt.download(
      chosen.map(({ name, version }) => `${name}=${version}`),
      work,
    );
    const next: typeof pending = [];
    for (const [source, [first, ...others]] of pending) {
      const changelog = await changelogOf(first!, work);
      if (changelog !== undefined) {
        covers.push(source);
        advisories.push(...advisoriesOf(changelog).filter((one) => one.package === source));
      } else if (others.length > 0) next.push([source, others]);
      else throw new Error(`packages: ${first!.name} ${first!.version} of ${apt.suite} has no changelog in it`);
    }
    pending = next;
  }
  return { covers, advisories };
}

/** Undefined when the package links to the documentation of another one. */
async function changelogOf({ name }: SuitePackage, work: string): Promise<string | undefined> {
  const archive = (await readdir(work)).find((file) => file.startsWith(`${name}_`) && file.endsWith(".deb"));
  if (archive === undefined) throw new Error(`packages: ${name} was not fetched`);
  const root = join(work, name);
  await run("dpkg-deb", ["--extract", join(work, archive), root]);
  try {
    // The second name is that of packages that exist in Debian only.
    for (const file of ["changelog.Debian.gz", "changelog.gz"]) {
      try {
        const content = await readFile(join(root, "usr/share/doc", name, file));
        return (await promisify(gunzip)(content)).toString();
      } catch (error) {
        if (!isAbsent(error)) throw error;
      }
    }
    return undefined;
  } finally {
    await rm(root, { recursive: true, force: true });
    await rm(join(work, archive));
  }
}

/** Writes a database with its description; the folder is replaced as a whole. */
export async function writeDatabase(
  directory: string,
  content: DatabaseRequest & ChangelogContents & { release: string },
  signal?: AbortSignal,
): Promise<DatabaseDescription> {
  const { suite, release } = content;
  const [packages, covers] = [content.packages, content.covers].map((names) => [...new Set(names)].sort());
  const key = ({ package: source, id }: Advisory) => `${source} ${id}`;
  const advisories = [...content.advisories].sort((a, b) => (key(a) < key(b) ? -1 : 1));
  const hash = createHash("sha256").update(JSON.stringify({ release, covers, advisories }));
  const description: DatabaseDescription = {
    digest: `sha256:${hash.digest("hex")}`,
    ...{ suite, release, packages: packages!, covers: covers! },
    advisories: advisories.length,
    builtAt: new Date().toISOString(),
  };
  const made = `${directory}.new-${process.pid}`;
  await rm(made, { recursive: true, force: true });
  await mkdir(made, { recursive: true });
  async function* input() {
    yield Buffer.from(JSON.stringify({ release, advisories }));
  }
  await run("vulndb", [made], { input: input(), ...(signal === undefined ? {} : { signal }) });
  await writeFile(join(made, descriptionFile), `${JSON.stringify(description, undefined, 2)}\n`);
  await rm(directory, { recursive: true, force: true });
  await rename(made, directory);
  return description;
}
