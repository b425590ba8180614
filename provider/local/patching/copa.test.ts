import { readFileSync } from "node:fs";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { pushedDigest, refusal } from "./copa.js";
import { progress } from "./local-patcher.js";

/** Output of Copa 0.11 for a package that the mirror does not have in the version that was asked for. */
const recorded = readFileSync(join(__dirname, "testdata/copa-lower-than-required.log"), "utf8").split("\n");

describe("what Copa says", () => {
  it("is refused as lower than required, with package and versions", () => {
    expect(refusal(recorded)?.message).toMatch(
      /: nginx 1\.26\.3-3\+deb13u11, lower than required 99\.0; nothing was pushed/,
    );
  });

  it.each([
    ["E: Held packages were changed and -y was used without --allow-change-held-packages.", /held in the image/],
    ['process "sh -c apt-get -s upgrade | grep" did not complete successfully: exit code: 1', /have nothing newer/],
    ["#12 1.2 E: Failed to fetch http://mirror.example/x  Connection failed", /cannot be read: Failed to fetch http/],
  ])("is classified: %s", (line, reason) => expect(refusal([line])?.message).toMatch(reason));

  it("is nobody's fault that is known", () => expect(refusal(["Error: context deadline exceeded"])).toBeUndefined());

  it("tells how far it is, in a line of its own each", () => {
    const steps = recorded.map(progress).filter((one) => one !== undefined);
    expect(steps).toContain("apt-get update");
    expect(steps.join("\n")).not.toMatch(/sha256:[0-9a-f]{64} \d/);
  });
});

describe("the digest that was pushed", () => {
  const digest = `sha256:${"a".repeat(64)}`;
  it("is the one of the OpenVEX document", () => {
    expect(pushedDigest(JSON.stringify({ statements: [{ products: [{ "@id": `pkg:oci/image@${digest}` }] }] }))).toBe(
      digest,
    );
  });
  it.each(["{}", '{"statements":[{"products":[{"@id":"pkg:oci/image:tag"}]}]}'])("is demanded: %s", (document) => {
    expect(() => pushedDigest(document)).toThrow(/told no digest/);
  });
});
