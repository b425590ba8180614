/** What hosts report of their integrity, and what the image of a host says that it reports. */
import type { GetIntegrityResponse } from "../../hosts/api/gen/palisade/agent/v1/agent_pb.js";

export interface IntegrityFacts {
  secureBoot: boolean;
  lockdown: string;
  rootHash: string;
  rootHashSignatureVerified: boolean;
  verityMount: string;
  ipePolicy: string;
  /** As in the policy's first line, e.g. `1.2.0`; empty when no policy is active. */
  ipePolicyVersion: string;
  /** SHA-256 of the policy's text, hex; empty when the host does not report it. */
  ipePolicyDigest: string;
  ipeEnforcing: boolean;
  selinux: "enforcing" | "permissive" | "disabled";
  kernelVersion: string;
  /** audit, enforce, jit or strict; empty when the host's command line names none. */
  mode: string;
  /** Layers of sealed images that are open as verity devices. */
  sealedLayers: number;
}

/** The agent's answer in the provider's terms. */
export function factsOf(answer: GetIntegrityResponse, kernelVersion: string): IntegrityFacts {
  const { root, ipe, selinux } = answer;
  return {
    secureBoot: answer.secureBoot,
    lockdown: answer.lockdown,
    rootHash: root?.rootHash ?? "",
    rootHashSignatureVerified: root?.signatureVerified ?? false,
    verityMount: root?.mountPoint ?? "",
    ipePolicy: ipe?.activePolicy ?? "",
    ipePolicyVersion: ipe?.policyVersion ?? "",
    ipePolicyDigest: ipe?.policyDigest ?? "",
    ipeEnforcing: ipe?.enforcing ?? false,
    selinux: !selinux?.enabled ? "disabled" : selinux.enforcing ? "enforcing" : "permissive",
    kernelVersion,
    mode: answer.mode,
    sealedLayers: answer.layers.length,
  };
}

/** Facts that an image decides. */
const decidedByImage = [
  "mode",
  "ipeEnforcing",
  "ipePolicy",
  "ipePolicyVersion",
  "ipePolicyDigest",
  "rootHash",
  "rootHashSignatureVerified",
  "verityMount",
  "kernelVersion",
  "secureBoot",
  "lockdown",
  "selinux",
] as const satisfies (keyof IntegrityFacts)[];

/**
 * What a host that runs an image has to report. A fact is absent, and not compared, when the image was described by a
 * version of Palisade that did not describe it.
 */
export type ExpectedIntegrity = {
  [Fact in (typeof decidedByImage)[number]]?: IntegrityFacts[Fact] extends string ? string : IntegrityFacts[Fact];
};

/** The facts that an image decides, of all that a host reports. */
export function expectedPart(facts: IntegrityFacts): ExpectedIntegrity {
  return Object.fromEntries(decidedByImage.map((fact) => [fact, facts[fact]]));
}

/** A fact in which a host is not as its image says. */
export interface IntegrityDifference {
  /** Name of a property of IntegrityFacts. */
  fact: (typeof decidedByImage)[number];
  declared: string | boolean;
  /** Undefined when the host does not report the fact. */
  observed: string | boolean | undefined;
}

/**
 * Every fact in which a host differs from what its image says, the most telling first.
 *
 * @param expected undefined when nothing is known of the image: then there is nothing to compare
 * @param observed undefined when the host does not run
 */
export function integrityDifferences(
  expected: ExpectedIntegrity | undefined,
  observed: ExpectedIntegrity | undefined,
): IntegrityDifference[] {
  if (!expected || !observed) return [];
  return decidedByImage.flatMap((fact) => {
    const declared = expected[fact];
    return declared === undefined || observed[fact] === declared ? [] : [{ fact, declared, observed: observed[fact] }];
  });
}

/** A difference in words, as `mode: declared "enforce", observed "audit"`. */
export function describeDifference({ fact, declared, observed }: IntegrityDifference): string {
  return `${fact}: declared ${JSON.stringify(declared)}, observed ${JSON.stringify(observed) ?? "nothing"}`;
}
