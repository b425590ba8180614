import { describe, expect, it } from "vitest";
import { describeDifference, integrityDifferences, type ExpectedIntegrity, type IntegrityFacts } from "./integrity.js";

const right: IntegrityFacts = {
  secureBoot: true,
  lockdown: "integrity",
  rootHash: "aa".repeat(32),
  rootHashSignatureVerified: true,
  verityMount: "/",
  ipePolicy: "palisade",
  ipePolicyVersion: "1.2.0",
  ipePolicyDigest: "bb".repeat(32),
  ipeEnforcing: true,
  selinux: "permissive",
  kernelVersion: "6.12.118+deb13-cloud-amd64",
  mode: "enforce",
  sealedLayers: 1,
};
const { sealedLayers: _counted, ...expected } = right;

describe("integrityDifferences", () => {
  it("finds nothing in a host that is as its image says, whatever runs on it", () => {
    const busy: IntegrityFacts = { ...right, sealedLayers: 7 };
    expect(integrityDifferences(expected, busy)).toEqual([]);
  });

  it.each<[Partial<IntegrityFacts>, string[]]>([
    [
      { mode: "audit", ipeEnforcing: false },
      ['mode: declared "enforce", observed "audit"', "ipeEnforcing: declared true, observed false"],
    ],
    [{ mode: "" }, ['mode: declared "enforce", observed ""']],
    [{ ipePolicy: "palisade-jit" }, ['ipePolicy: declared "palisade", observed "palisade-jit"']],
    [{ ipePolicyVersion: "1.1.0" }, ['ipePolicyVersion: declared "1.2.0", observed "1.1.0"']],
    [{ ipePolicyDigest: "cc" }, [`ipePolicyDigest: declared "${expected.ipePolicyDigest}", observed "cc"`]],
    [{ rootHash: "" }, [`rootHash: declared "${expected.rootHash}", observed ""`]],
    [{ rootHashSignatureVerified: false }, ["rootHashSignatureVerified: declared true, observed false"]],
    [{ verityMount: "/usr" }, ['verityMount: declared "/", observed "/usr"']],
    [{ kernelVersion: "6.12.1" }, [`kernelVersion: declared "${expected.kernelVersion}", observed "6.12.1"`]],
    [{ secureBoot: false }, ["secureBoot: declared true, observed false"]],
    [{ lockdown: "none" }, ['lockdown: declared "integrity", observed "none"']],
    [{ selinux: "disabled" }, ['selinux: declared "permissive", observed "disabled"']],
  ])("names every fact that differs: %j", (wrong, described) => {
    expect(integrityDifferences(expected, { ...right, ...wrong }).map(describeDifference)).toEqual(described);
  });

  it("counts a fact that the host does not report as a difference", () => {
    const { mode: _unreported, ...observed } = right;
    expect(integrityDifferences(expected, observed).map(describeDifference)).toEqual([
      'mode: declared "enforce", observed nothing',
    ]);
  });

  it("does not compare what the image's description does not say", () => {
    const { selinux: _selinux, ipePolicyDigest: _digest, ...older } = expected;
    const observed: IntegrityFacts = { ...right, selinux: "disabled", ipePolicyDigest: "" };
    expect(integrityDifferences(older, observed)).toEqual([]);
    expect(integrityDifferences(expected as ExpectedIntegrity, observed)).toHaveLength(2);
  });

  it("compares nothing where image or host is not there", () => {
    expect(integrityDifferences(undefined, right)).toEqual([]);
    expect(integrityDifferences(expected, undefined)).toEqual([]);
  });
});
