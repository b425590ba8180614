/**
 * Packages of a Debian suite by this machine's apt, in a state of its own: the machine's lists and packages are not
 * touched.
 */
import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { aptSourcesFor } from "../image-builder/apt-sources.js";
import { run } from "../../system/command.js";

/** A binary package of the suite. */
export interface SuitePackage {
  name: string;
  version: string;
  /** Source package. */
  source: string;
  /** Of the .deb, bytes. */
  size: number;
}

export class SuiteApt {
  constructor(
    private readonly folder: string,
    readonly suite: string,
    private readonly signal?: AbortSignal,
  ) {}

  /** Updates the lists of the suite. Throws when one cannot be read. */
  async update(): Promise<void> {
    for (const path of ["lists/partial", "archives/partial"])
      await mkdir(join(this.folder, path), { recursive: true, mode: 0o700 });
    await writeFile(join(this.folder, "status"), "");
    await writeFile(join(this.folder, "debian.sources"), await aptSourcesFor(this.suite));
    await this.apt("apt-get", ["update", "--error-on=any"]);
  }

  /** Names of the packages of an image with these: themselves, their dependencies, the essential ones. */
  async closure(names: string[]): Promise<string[]> {
    const output = await this.apt("apt-get", [
      ...["--simulate", "--no-install-recommends", "install", "?essential", ...names],
    ]);
    return [...output.matchAll(/^Inst (\S+) /gm)].map(([, name]) => name!);
  }

  async packages(names: string[]): Promise<SuitePackage[]> {
    return parsePackages(await this.apt("apt-cache", ["show", "--no-all-versions", ...names]));
  }

  /** Fetches the .deb files into a folder. */
  async download(names: string[], into: string): Promise<void> {
    await this.apt("apt-get", ["download", ...names], into);
  }

  private apt(program: string, args: string[], directory?: string): Promise<string> {
    const settings = {
      "Dir::State::lists": join(this.folder, "lists"),
      "Dir::State::status": join(this.folder, "status"),
      "Dir::Cache": this.folder,
      "Dir::Etc::sourcelist": join(this.folder, "debian.sources"),
      "Dir::Etc::sourceparts": "/dev/null",
      // The folder is the operator's alone.
      "APT::Sandbox::User": "root",
    };
    const options = Object.entries(settings).flatMap(([name, value]) => ["-o", `${name}=${value}`]);
    return run(program, [...options, ...args], {
      ...(this.signal === undefined ? {} : { signal: this.signal }),
      ...(directory === undefined ? {} : { directory }),
    });
  }
}

/** Reads stanzas as `apt-cache show` prints them. */
export function parsePackages(output: string): SuitePackage[] {
  return output.split(/\n\n+/).flatMap((stanza) => {
    const field = (name: string) => new RegExp(`^${name}: (.*)$`, "m").exec(stanza)?.[1];
    const [name, version] = [field("Package"), field("Version")];
    if (name === undefined || version === undefined) return [];
    // `Source: krb5 (1.21.3-5)` where its version is another one.
    const source = field("Source")?.split(" ")[0] ?? name;
    return [{ name, version, source, size: Number(field("Size") ?? 0) }];
  });
}
