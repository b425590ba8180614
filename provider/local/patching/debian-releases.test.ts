import { describe, expect, it } from "vitest";
import { debianReleases, requireSupported, parseReleases } from "./debian-releases.js";

const releases = parseReleases(`version,codename,series,created,release,eol,eol-lts,eol-elts
11,Bullseye,bullseye,2019-07-06,2021-08-14,2024-08-14,2026-08-31,2031-06-30
13,Trixie,trixie,2023-06-10,2025-08-09,2028-08-09,2030-06-30,2035-06-30
,Sid,sid,1993-08-16,1993-08-16
`);
const debian = (version: string) => ({ family: "debian", version });

describe("requireSupported", () => {
  it("goes by the end of long-term support", () => {
    requireSupported(debian("11.11"), releases, "2026-08-31");
    expect(() => requireSupported(debian("11.11"), releases, "2026-09-01")).toThrow(
      /Debian 11\.11 \(bullseye\), which has had no security updates since 2026-08-31/,
    );
    requireSupported(debian("13.8"), releases, "2026-11-24");
  });

  it.each([
    [debian("12.1"), /which .*debian\.csv does not know; update distro-info-data/],
    [{ family: "alpine", version: "3.20" }, /the image is alpine 3\.20; images of Debian can be patched/],
  ])("refuses what it does not know: %j", (system, reason) => {
    expect(() => requireSupported(system, releases, "2026-11-24")).toThrow(reason);
  });
});

it("says which package tells the releases", async () => {
  await expect(debianReleases("/nowhere/debian.csv")).rejects.toThrow(/is missing.*install distro-info-data/);
});
