import { describe, expect, it } from "vitest";
import { SecretPaths } from "./marshal.js";
import { redact, secretTexts } from "./redaction.js";

describe("secrets in messages", () => {
  const secrets = new SecretPaths();
  secrets.add(["list", 0, "password"]);
  const properties = { list: [{ name: "user", password: "canary-password" }], token: "canary-token", port: 80 };
  const texts = secretTexts(properties, secrets, (path) => path[0] === "token");

  it("are found at secret paths and where the schema says so", () => {
    expect(texts).toEqual(["canary-password", "canary-token"]);
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
});
