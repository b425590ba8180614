import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { withFolder } from "../../system/testing.js";
import { aptSourcesFor, formatDeb822, parseDeb822, parseList, sourcesFor } from "./apt-sources.js";

const deb822 = `Types: deb
# A comment between fields.
URIs: http://mirror.example/debian
Suites: bookworm bookworm-updates
Components: main
Signed-By: /usr/share/keyrings/debian-archive-keyring.gpg

Types: deb deb-src
URIs: http://mirror.example/debian-security
Suites: bookworm-security
Components: main contrib
Signed-By:
 -----BEGIN PGP PUBLIC KEY BLOCK-----
 .
 -----END PGP PUBLIC KEY BLOCK-----

Enabled: no
Types: deb
URIs: http://disabled.example/debian
Suites: bookworm
Components: main

Types: deb
URIs: https://vendor.example/node
Suites: nodistro
Components: main
`;

describe("package sources", () => {
  it("are those of this machine's Debian, with the wanted suite in place of its own", () => {
    const machine = [
      ...parseDeb822(deb822),
      ...parseList(
        "deb [signed-by=/k.gpg] http://one.example/debian bookworm main # x\ndeb-src http://a bookworm main\n",
      ),
      ...parseList("deb https://vendor.example/apt cloud-sdk-bookworm main"),
    ];
    const sources = sourcesFor(machine, "bookworm", "trixie");
    expect(sources.map(({ uris, suites, components }) => [uris, suites, components])).toEqual([
      [["http://mirror.example/debian"], ["trixie", "trixie-updates"], ["main"]],
      [["http://mirror.example/debian-security"], ["trixie-security"], ["main"]],
      [["http://one.example/debian"], ["trixie"], ["main"]],
    ]);
    expect(parseDeb822(formatDeb822(sources))).toEqual(sources);
  });

  it("are read from /etc/apt, and their absence is an error that says so", async () => {
    await withFolder(async (etc) => {
      await mkdir(join(etc, "apt", "sources.list.d"), { recursive: true });
      await writeFile(join(etc, "os-release"), "ID=debian\nVERSION_CODENAME=bookworm\n");
      await expect(aptSourcesFor("trixie", etc)).rejects.toThrow(/^suite: no source of Debian bookworm/);
      await writeFile(join(etc, "apt", "sources.list.d", "debian.sources"), deb822);
      expect(await aptSourcesFor("trixie", etc)).toContain("Suites: trixie trixie-updates");
      await writeFile(join(etc, "os-release"), "ID=ubuntu\nVERSION_CODENAME=noble\n");
      await expect(aptSourcesFor("trixie", etc)).rejects.toThrow(/^suite: .*needs a Debian machine/);
    });
  });
});
