/** Package sources of a Debian suite, taken from this machine's own apt configuration: no mirror is ever named here. */
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { readDirectoryIfPresent, readFileIfPresent } from "../../system/atomic-file.js";

/** One source in deb822 terms: https://manpages.debian.org/bookworm/apt/sources.list.5.en.html */
export interface AptSource {
  uris: string[];
  suites: string[];
  components: string[];
  signedBy: string | undefined;
}

/** Parses a `.sources` file. Disabled stanzas and those without binary packages are left out. */
export function parseDeb822(content: string): AptSource[] {
  return content.split(/\n\s*\n/).flatMap((stanza) => {
    const fields = new Map<string, string>();
    let last = "";
    for (const line of stanza.split("\n")) {
      if (line.startsWith("#")) continue;
      const field = /^([A-Za-z-]+):\s*(.*)$/.exec(line);
      if (field) fields.set((last = field[1]!.toLowerCase()), field[2]!);
      else if (/^\s/.test(line) && last) fields.set(last, `${fields.get(last)}\n${line}`);
    }
    const words = (name: string) => (fields.get(name) ?? "").split(/\s+/).filter(Boolean);
    if (!words("types").includes("deb") || fields.get("enabled")?.toLowerCase() === "no") return [];
    const signedBy = fields.get("signed-by");
    return [{ uris: words("uris"), suites: words("suites"), components: words("components"), signedBy }];
  });
}

/** Parses a one-line-style `.list` file. */
export function parseList(content: string): AptSource[] {
  return content.split("\n").flatMap((line) => {
    const match = /^deb\s+(?:\[([^\]]*)\]\s+)?(\S+)\s+(\S+)\s+([^#]+)/.exec(line.trim());
    if (!match) return [];
    const signedBy = /signed-by=(\S+)/.exec(match[1] ?? "")?.[1];
    return [{ uris: [match[2]!], suites: [match[3]!], components: match[4]!.trim().split(/\s+/), signedBy }];
  });
}

/**
 * A source that serves `codename` here serves `suite` too, because a mirror of Debian has all suites. Sources of other
 * vendors, whose suites have other names, are left out.
 */
export function sourcesFor(machine: AptSource[], codename: string, suite: string): AptSource[] {
  const own = new Map(["", "-updates", "-security"].map((part) => [`${codename}${part}`, `${suite}${part}`]));
  return machine.flatMap((source) => {
    const suites = source.suites.flatMap((name) => own.get(name) ?? []);
    const components = source.components.filter((name) => name === "main");
    return suites.length && components.length ? [{ ...source, suites, components }] : [];
  });
}

/** The sources as a `.sources` file. */
export function formatDeb822(sources: AptSource[]): string {
  return sources
    .map((source) =>
      [
        "Types: deb",
        `URIs: ${source.uris.join(" ")}`,
        `Suites: ${source.suites.join(" ")}`,
        `Components: ${source.components.join(" ")}`,
        ...(source.signedBy === undefined ? [] : [`Signed-By: ${source.signedBy}`]),
        "",
      ].join("\n"),
    )
    .join("\n");
}

async function machineSources(directory: string): Promise<AptSource[]> {
  const sources = parseList((await readFileIfPresent(join(directory, "sources.list"))) ?? "");
  const parts = join(directory, "sources.list.d");
  for (const name of (await readDirectoryIfPresent(parts)).sort()) {
    const parse = name.endsWith(".sources") ? parseDeb822 : name.endsWith(".list") ? parseList : undefined;
    if (parse) sources.push(...parse(await readFile(join(parts, name), "utf8")));
  }
  return sources;
}

/** Which of a suite's sources: all of them, or only those of its last point release. */
export type SourceSet = "all" | "release";

/**
 * The `.sources` file for a suite.
 *
 * @throws when this machine is no Debian, or its apt names no source of its own release.
 */
export async function aptSourcesFor(suite: string, etc = "/etc", set: SourceSet = "all"): Promise<string> {
  const release = await readFile(join(etc, "os-release"), "utf8");
  const codename = /^VERSION_CODENAME="?([a-z]+)"?$/m.exec(release)?.[1];
  if (!codename || !/^ID="?debian"?$/m.test(release)) {
    throw new Error(`suite: an image of ${suite} needs a Debian machine; ${etc}/os-release says that this is none`);
  }
  const all = sourcesFor(await machineSources(join(etc, "apt")), codename, suite);
  const sources =
    set === "all" ? all : all.flatMap((one) => (one.suites.includes(suite) ? [{ ...one, suites: [suite] }] : []));
  if (sources.length === 0) {
    throw new Error(
      `suite: no source of Debian ${codename} with component main in ${etc}/apt; add one to build ${suite} from`,
    );
  }
  return formatDeb822(sources);
}
