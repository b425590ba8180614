/** What the hosts of a World report of their integrity, and what their image says of it. */
import type { IntegrityFacts } from "../../../provider/backends/index.js";
import type { Thing } from "./world.js";

const facts: IntegrityFacts = {
  secureBoot: true,
  lockdown: "integrity",
  rootHash: "00".repeat(32),
  rootHashSignatureVerified: true,
  verityMount: "/",
  ipePolicy: "palisade",
  ipePolicyVersion: "1.2.0",
  ipePolicyDigest: "11".repeat(32),
  ipeEnforcing: true,
  selinux: "permissive",
  kernelVersion: "6.12.0-fake",
  mode: "enforce",
  sealedLayers: 1,
};

const { sealedLayers: _counted, ...decidedByImage } = facts;
/** What the image of every machine says. */
export const expectedIntegrity = decidedByImage;

/** `facts` of what is observed of the machine last until it is restarted; `wrongFacts` stay. */
export function factsOfMachine({ observed }: Thing<unknown>): IntegrityFacts {
  return {
    ...facts,
    ...(observed["facts"] as Partial<IntegrityFacts>),
    ...(observed["wrongFacts"] as Partial<IntegrityFacts>),
  };
}
