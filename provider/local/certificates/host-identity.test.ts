import { X509Certificate } from "node:crypto";
import { beforeAll, describe, expect, it } from "vitest";
import { withFolder } from "../../system/testing.js";
import { readAuthority, type Authority } from "./authority.js";
import { publicKeyDigest } from "./host-certificate.js";
import {
  completeRecord,
  issueHostCertificate,
  recordProvenIdentity,
  requireOwnIdentity,
  type HostIdentity,
  type IdentityEvidence,
} from "./host-identity.js";
import { makeAuthority, makeRequest, memoryRecord } from "./testing.js";

const [own, other] = ["host-0123456789abcdef", "host-ffffffffffffffff"];
const [ownKey, otherKey] = ["aa", "bb"];
const identity = (hostId: string, keyDigest: string): HostIdentity => ({ hostId, keyDigest });
const place = "state disk disk-1";

describe("requireOwnIdentity", () => {
  it.each<[string, HostIdentity, Partial<IdentityEvidence>]>([
    ["a new host with an id that nobody has", identity(own, ownKey), {}],
    ["a known host", identity(own, ownKey), { recorded: identity(own, ownKey) }],
    ["a known host of an older version", identity(own, ownKey), { recorded: { hostId: own } }],
    [
      "a renewal over the host's own connection",
      identity(own, ownKey),
      { recorded: identity(own, ownKey), connection: identity(own, ownKey) },
    ],
    [
      "a renewal of a host of an older version",
      identity(own, ownKey),
      { recorded: { hostId: own }, connection: identity(own, ownKey) },
    ],
  ])("permits %s", (_name, claimed, evidence) => {
    expect(() => requireOwnIdentity(claimed, { place, ...evidence })).not.toThrow();
  });

  it.each<[string, HostIdentity, Partial<IdentityEvidence>, RegExp]>([
    [
      "a new host with the id of another place",
      identity(other, ownKey),
      { otherOwner: "state disk disk-2" },
      /host-f+ asks .* from state disk disk-1, but this id belongs to state disk disk-2; .*replace/,
    ],
    [
      "a known host with another id",
      identity(other, ownKey),
      { recorded: identity(own, ownKey) },
      /host-f+ asks .* where host-0123456789abcdef is expected \(state disk disk-1\); .*replace/,
    ],
    [
      "a known host of an older version with another id",
      identity(other, ownKey),
      { recorded: { hostId: own } },
      /where host-0123456789abcdef is expected/,
    ],
    [
      "a known id with another key",
      identity(own, otherKey),
      { recorded: identity(own, ownKey) },
      /host-0123456789abcdef asks .* the key sha256:bb, not for sha256:aa, which is recorded for host-0123456789abcdef/,
    ],
    [
      "a renewal with another id than the connection's",
      identity(other, ownKey),
      { recorded: identity(own, ownKey), connection: identity(own, ownKey) },
      /host-f+ asks .* over the connection of host host-0123456789abcdef; .*replace/,
    ],
    [
      "a renewal with another key than the connection's, without a recorded one",
      identity(own, otherKey),
      { recorded: { hostId: own }, connection: identity(own, ownKey) },
      /the key sha256:bb, not for sha256:aa, which is of the connection of host host-0123456789abcdef/,
    ],
    [
      "a renewal with the recorded key over a connection with another",
      identity(own, ownKey),
      { recorded: identity(own, ownKey), connection: identity(own, otherKey) },
      /the key sha256:aa, not for sha256:bb, which is of the connection/,
    ],
  ])("refuses %s", (_name, claimed, evidence, message) => {
    expect(() => requireOwnIdentity(claimed, { place, ...evidence })).toThrow(
      expect.objectContaining({
        name: "CertificateRefusedError",
        message: expect.stringMatching(message) as string,
      }),
    );
  });
});

describe("issueHostCertificate", () => {
  let authority: Authority;
  beforeAll(() => withFolder(async (folder) => void (authority = await readAuthority(await makeAuthority(folder)))));

  it("signs for the host's own key and records that", async () => {
    const record = memoryRecord();
    const { pem, keyDigest } = await makeRequest(own);
    const certificate = await issueHostCertificate(authority, { hostId: own, certificateRequest: pem }, record);
    expect(publicKeyDigest(new X509Certificate(certificate).publicKey)).toBe(keyDigest);
    expect(record.recorded).toEqual({ hostId: own, keyDigest });
    // Once more with the same key, and never with another.
    await issueHostCertificate(authority, { hostId: own, certificateRequest: pem }, record);
    const again = { hostId: own, certificateRequest: (await makeRequest(own)).pem };
    await expect(issueHostCertificate(authority, again, record)).rejects.toThrow(/the key sha256:/);
    expect(record.recorded).toEqual({ hostId: own, keyDigest });
  });

  it("records nothing of a request that is refused", async () => {
    const taken = memoryRecord(undefined, { [own]: "state disk other" });
    const free = memoryRecord();
    const { pem, tampered } = await makeRequest(own);
    for (const [record, certificateRequest] of [
      [taken, pem],
      [free, tampered()],
      [free, (await makeRequest(other)).pem],
    ] as const) {
      await expect(issueHostCertificate(authority, { hostId: own, certificateRequest }, record)).rejects.toMatchObject({
        name: "CertificateRefusedError",
      });
      expect(record.recorded).toBeUndefined();
    }
  });
});

describe("recordProvenIdentity", () => {
  it("records who answers, unless that is another host", async () => {
    const free = memoryRecord();
    await recordProvenIdentity(free, identity(own, ownKey));
    expect(free.recorded).toEqual(identity(own, ownKey));
    const taken = memoryRecord(undefined, { [own]: "state disk other" });
    await expect(recordProvenIdentity(taken, identity(own, ownKey))).rejects.toThrow(/belongs to state disk other/);
    expect(taken.recorded).toBeUndefined();
  });
});

describe("completeRecord", () => {
  it.each([
    ["takes the key where there is none", { hostId: own }, identity(own, ownKey)],
    ["keeps a key", identity(own, otherKey), identity(own, otherKey)],
    ["keeps the record of another host", { hostId: other }, { hostId: other }],
    ["makes no record", undefined, undefined],
  ])("%s", async (_name, before, after) => {
    const record = memoryRecord(before);
    await completeRecord(record, identity(own, ownKey));
    expect(record.recorded).toEqual(after);
  });
});
