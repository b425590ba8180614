/** Random policies with all that Palisade adds to Kubernetes': tiers, denial, entities, ICMP. */
import fc from "fast-check";
import { expect, it } from "vitest";
import { type CompiledPolicy, compileNetworkPolicies, type PolicySet } from "../../../components/policy/index.js";
import {
  hostAddresses,
  outsideAddresses,
  policySet,
  portNumbers,
} from "../../../components/policy/testing/arbitraries.js";
import { interpreter, type Packet } from "./interpreter.js";
import { model } from "./model.js";

const contents: Pick<Packet, "protocol" | "port" | "code">[] = [
  ...(["TCP", "UDP", "SCTP"] as const).flatMap((protocol) =>
    [...portNumbers, 1, 65535].map((port) => ({ protocol, port })),
  ),
  ...[0, 3, 8, 255].flatMap((port) => [0, 4, 5].map((code) => ({ protocol: "ICMP" as const, port, code }))),
  ...[0, 128].map((port) => ({ protocol: "ICMPv6" as const, port, code: 0 })),
  { protocol: "other", port: 0 },
];

function addressesOf(set: PolicySet): Map<string, string> {
  return new Map(
    set.endpoints.flatMap(({ namespace = "default", name, addresses = [] }) =>
      addresses.map((address): [string, string] => [address, `${namespace}/${name}`]),
    ),
  );
}

/** Every packet of the small world on whose verdict the two disagree. */
function* disagreements(set: PolicySet, policy: CompiledPolicy): Generator<string> {
  const endpoints = addressesOf(set);
  const { verdict } = interpreter(policy, endpoints, hostAddresses);
  const meant = model(set, hostAddresses);
  const all = [...endpoints.keys(), ...hostAddresses, ...outsideAddresses];
  for (const from of all) {
    for (const to of all) {
      if (from.includes(":") !== to.includes(":") || (!endpoints.has(from) && !endpoints.has(to))) continue;
      for (const content of contents) {
        const packet = { from, to, ...content };
        const [got, wanted] = [verdict(packet), meant(packet)];
        if (got.ingress !== wanted.ingress || got.egress !== wanted.egress) {
          yield `${JSON.stringify(packet)}: ${JSON.stringify(got)} instead of ${JSON.stringify(wanted)}`;
        }
      }
    }
  }
}

const first = (set: PolicySet, policy: CompiledPolicy): string | undefined =>
  disagreements(set, policy).next().value as string | undefined;

/** PALISADE_RUNS asks for more than these. */
it("the compiled form means what the arguments do", () => {
  fc.assert(
    fc.property(policySet, (set) => {
      expect(first(set, compileNetworkPolicies(set))).toBeUndefined();
    }),
    { numRuns: Number(process.env.PALISADE_RUNS ?? 150) },
  );
});

it("detects a policy that was compiled from other arguments", () => {
  const failing = fc.check(
    fc.property(policySet, (set) => {
      const less = { ...set, networkPolicies: set.networkPolicies?.slice(1) };
      expect(first(set, compileNetworkPolicies(less))).toBeUndefined();
    }),
    { numRuns: 300 },
  );
  expect(failing.failed).toBe(true);
});
