import { expect, it } from "vitest";
import { advisoriesOf } from "./changelog.js";

const changelog = `nginx (1.26.3-3+deb13u2) trixie-security; urgency=medium

  * Backport fix for buffer overread (CVE-2026-27654)
    and once more for CVE-2025-53859, whose first fix was not whole.

 -- A Maintainer <a@example.org>  Mon, 02 Mar 2026 10:00:00 +0100

nginx (1.26.3-3+deb13u1) trixie; urgency=medium

  * SMTP: fix for CVE-2025-53859.
  * No fix: CVE-20-1, cve-2025-1111.

 -- A Maintainer <a@example.org>  Sun, 07 Sep 2025 10:00:00 +0200
`;

it("takes the newest version that names a vulnerability", () => {
  expect(advisoriesOf(changelog)).toEqual([
    { package: "nginx", id: "CVE-2026-27654", fixedVersion: "1.26.3-3+deb13u2" },
    { package: "nginx", id: "CVE-2025-53859", fixedVersion: "1.26.3-3+deb13u2" },
  ]);
});

it("finds nothing before the first entry", () => {
  expect(advisoriesOf(" CVE-2026-27654\n")).toEqual([]);
});
