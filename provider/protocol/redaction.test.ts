import { readFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { packageRoot } from "../../shared/directories.js";
import { SecretPaths } from "./marshal.js";
import { redact, secretTexts } from "./redaction.js";

interface Case {
  name: string;
  secrets: string[];
  message: string;
  shown: string;
}
/** The agent's redaction passes the same cases (hosts/redact). */
const cases = JSON.parse(readFileSync(path.join(packageRoot(), "hosts/redact/testdata/cases.json"), "utf8")) as Case[];

describe("secrets in messages", () => {
  const secrets = new SecretPaths();
  secrets.add(["list", 0, "password"]);
  const properties = { list: [{ name: "user", password: "canary-password" }], token: "canary-token", port: 80 };
  const texts = secretTexts(properties, secrets, (path) => path[0] === "token");

  it("are found at secret paths and where the schema says so", () => {
    expect(texts).toEqual(["canary-password", "canary-token"]);
  });

  it("are found as numbers and short texts too, and not where they may be shown", () => {
    const all = new SecretPaths();
    all.add(["settings"]);
    const settings = { port: 4711, pin: "12", none: "", on: true, host: "h" };
    expect(
      secretTexts(
        { settings },
        all,
        () => false,
        (path) => path[1] === "host",
      ),
    ).toEqual(["4711", "12"]);
  });

  it("are replaced, everything else stays", () => {
    expect(redact("user: canary-password is not canary-token, canary", texts)).toBe(
      "user: [secret] is not [secret], canary",
    );
  });

  it("are replaced where a message quotes their beginning only", () => {
    const long = "0123456789".repeat(12);
    expect(redact(`"${long.slice(0, 76)}… is wrong`, [long])).toBe('"[secret]… is wrong');
  });

  it("are replaced in their quoted form", () => {
    const quoted = secretTexts({ token: 'with "quotes"' }, new SecretPaths(), () => true);
    expect(redact(`${JSON.stringify('with "quotes"')} is wrong`, quoted)).toBe('"[secret]" is wrong');
  });

  it.each(cases)("$name", ({ secrets, message, shown }) => {
    const once = redact(message, secrets);
    expect(once).toBe(shown);
    expect(redact(once, secrets)).toBe(shown);
  });

  it("are replaced in little time, however long secrets and messages are", () => {
    const started = Date.now();
    for (const secret of ["a".repeat(20_000), "\\".repeat(20_000), "%61".repeat(7_000), "ab\n".repeat(7_000)]) {
      expect(redact(`x ${secret} y`, [secret])).not.toContain("aaaa");
    }
    expect(Date.now() - started).toBeLessThan(30_000);
  }, 60_000);
});
