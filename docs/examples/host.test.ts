// A test of a host, with vitest. Copy it into your project. HOST_IMAGE is the digest of an image that exists already.
// Without it, the test builds the image first.
import { homedir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { HostImage, NestedHost } from "@palisade-host/palisade";
import { ephemeralStack, type EphemeralStack } from "@palisade-host/palisade/testing";

const minutes = 60_000;
let stack: EphemeralStack | undefined;

beforeAll(async () => {
  stack = await ephemeralStack(async () => {
    const keysDirectory = path.join(homedir(), ".local/share/palisade/keys");
    const image = process.env["HOST_IMAGE"] ?? new HostImage("image", { build: { keysDirectory } }).imageDigest;
    const host = new NestedHost("host", { image, snapshot: "template", stateDiskGiB: 2 });
    return { hostId: host.hostId, integrity: host.integrity };
  });
}, 30 * minutes);

afterAll(async () => {
  await stack?.destroy();
}, 5 * minutes);

it("is a host that enforces", () => {
  expect(stack?.outputs["integrity"]).toMatchObject({
    secureBoot: true,
    rootHashSignatureVerified: true,
    ipeEnforcing: true,
  });
});
