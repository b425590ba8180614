/** Random policies about a small world, so that they meet in it. */
import fc from "fast-check";
import type {
  ClusterNetworkPolicyArgs,
  LabelSelector,
  NetworkPolicyArgs,
  NetworkPolicyPeer,
  NetworkPolicyPort,
  PolicyEndpoint,
  PolicySet,
} from "../arguments.js";

export const namespaceNames = ["x", "y", "z"];
export const hostAddresses = ["10.1.2.1", "fd00:1::1"];
export const outsideAddresses = ["10.1.2.200", "10.9.9.9", "198.51.100.7", "fd00:1::99", "fd00:2::1", "2001:db8::1"];
export const portNumbers = [79, 80, 81, 443];

const portNames = ["http", "dns"];
const cidrs = [
  "0.0.0.0/0",
  "10.0.0.0/8",
  "10.1.0.0/16",
  "10.1.2.0/24",
  "10.1.2.3/32",
  "::/0",
  "fd00::/8",
  "fd00:1::/32",
];
const exceptions: Record<string, string[]> = {
  "0.0.0.0/0": ["10.0.0.0/8", "10.1.2.0/24", "198.51.100.0/24"],
  "10.0.0.0/8": ["10.1.0.0/16", "10.1.2.3/32"],
  "10.1.0.0/16": ["10.1.2.0/24"],
  "::/0": ["fd00::/8"],
  "fd00::/8": ["fd00:1::/32"],
};

const value = fc.constantFrom("a", "b", "c");
const key = fc.constantFrom("app", "tier");

const selector: fc.Arbitrary<LabelSelector> = fc.record(
  {
    matchLabels: fc.dictionary(key, value, { maxKeys: 1 }),
    matchExpressions: fc.array(
      fc.oneof(
        fc.record({
          key,
          operator: fc.constantFrom("In" as const, "NotIn" as const),
          values: fc.uniqueArray(value, { minLength: 1, maxLength: 2 }),
        }),
        fc.record({ key, operator: fc.constantFrom("Exists" as const, "DoesNotExist" as const) }),
      ),
      { maxLength: 1 },
    ),
  },
  { requiredKeys: [] },
);

const namespaceSelector: fc.Arbitrary<LabelSelector> = fc.oneof(
  selector,
  fc.constantFrom(...namespaceNames).map((name) => ({ matchLabels: { "kubernetes.io/metadata.name": name } })),
);

const ipBlock = fc
  .constantFrom(...cidrs)
  .chain((cidr) =>
    fc.record({ cidr: fc.constant(cidr), except: fc.subarray(exceptions[cidr] ?? []) }, { requiredKeys: ["cidr"] }),
  );

const groups: fc.Arbitrary<NetworkPolicyPeer> = fc.oneof(
  fc.record({ groupSelector: selector }),
  fc.record({ namespaceSelector }),
  fc.record({ groupSelector: selector, namespaceSelector }),
);

const peer: fc.Arbitrary<NetworkPolicyPeer> = fc.oneof(
  { weight: 3, arbitrary: groups },
  { weight: 2, arbitrary: fc.record({ ipBlock }) },
  fc.record({ entities: fc.uniqueArray(fc.constantFrom("host", "world", "all"), { minLength: 1, maxLength: 2 }) }),
);

const transport = fc.constantFrom("TCP" as const, "UDP" as const, "SCTP" as const);
const number = fc.constantFrom(...portNumbers);

const port: fc.Arbitrary<NetworkPolicyPort> = fc.oneof(
  fc.record({ protocol: transport, port: number }, { requiredKeys: [] }),
  fc.record({ protocol: transport, port: fc.constantFrom(...portNames) }),
  fc
    .tuple(transport, number, fc.nat(400))
    .map(([protocol, start, length]) => ({ protocol, port: start, endPort: start + length })),
  fc.record(
    { protocol: fc.constantFrom("ICMP" as const, "ICMPv6" as const), icmpType: fc.constantFrom(0, 3, 8) },
    { requiredKeys: ["protocol"] },
  ),
  fc.record({ protocol: fc.constant("ICMP" as const), icmpType: fc.constantFrom(3, 8), icmpCode: fc.nat(4) }),
);

const peers = fc.array(peer, { minLength: 1, maxLength: 3 });
const ports = fc.array(port, { minLength: 1, maxLength: 3 });

const networkPolicy: fc.Arbitrary<Omit<NetworkPolicyArgs, "name">> = fc.record(
  {
    namespace: fc.constantFrom(...namespaceNames),
    groupSelector: selector,
    action: fc.constantFrom("Allow" as const, "Allow" as const, "Deny" as const),
    ingress: fc.array(fc.record({ from: peers, ports }, { requiredKeys: [] }), { maxLength: 3 }),
    egress: fc.array(fc.record({ to: peers, ports }, { requiredKeys: [] }), { maxLength: 3 }),
  },
  { requiredKeys: ["groupSelector", "namespace"] },
);

const action = fc.constantFrom("Allow" as const, "Deny" as const, "Pass" as const);

const clusterNetworkPolicy: fc.Arbitrary<Omit<ClusterNetworkPolicyArgs, "name">> = fc.record(
  {
    tier: fc.constantFrom("Admin" as const, "Baseline" as const),
    priority: fc.nat(3),
    subject: fc.record({ namespaceSelector, groupSelector: selector }, { requiredKeys: [] }),
    ingress: fc.array(fc.record({ action, from: peers, ports }, { requiredKeys: ["action", "from"] }), {
      maxLength: 4,
    }),
    egress: fc.array(fc.record({ action, to: peers, ports }, { requiredKeys: ["action", "to"] }), { maxLength: 4 }),
  },
  { requiredKeys: ["tier", "priority", "subject"] },
);

const namedPorts = fc.uniqueArray(
  fc.record(
    { name: fc.constantFrom(...portNames), protocol: transport, port: number },
    { requiredKeys: ["name", "port"] },
  ),
  { maxLength: 2, selector: ({ name }) => name },
);

/** One address each, of either family, in and outside of the prefixes. */
const endpoints: fc.Arbitrary<PolicyEndpoint[]> = fc
  .array(
    fc.record({
      namespace: fc.constantFrom(...namespaceNames),
      labels: fc.dictionary(key, value, { maxKeys: 2 }),
      ports: namedPorts,
      place: fc.constantFrom("10.1.2.", "10.1.9.", "10.7.7.", "192.0.2.", "fd00:1::", "fd00:9::"),
    }),
    { minLength: 1, maxLength: 6 },
  )
  .map((list) =>
    list.map(({ place, ...endpoint }, index) => ({
      ...endpoint,
      name: `e${index}`,
      addresses: [`${place}${index + 3}`],
    })),
  );

/** A set of policies that is right. */
export const policySet: fc.Arbitrary<PolicySet> = fc.record({
  networkPolicies: fc
    .array(networkPolicy, { maxLength: 4 })
    .map((list) => list.map((policy, index) => ({ ...policy, name: `np${index}` }))),
  clusterNetworkPolicies: fc
    .array(clusterNetworkPolicy, { maxLength: 4 })
    .map((list) => list.map((policy, index) => ({ ...policy, name: `cnp${index}` }))),
  endpoints,
  namespaces: fc.record({ x: fc.dictionary(key, value), y: fc.dictionary(key, value) }).map(({ x, y }) => [
    { name: "x", labels: x },
    { name: "y", labels: y },
  ]),
});

/** Selects groups of one namespace by their labels only, so that it names no prefix and no port. */
export const plainPolicy = (namespace: string): fc.Arbitrary<NetworkPolicyArgs> =>
  fc.record({
    name: fc.constant("another"),
    namespace: fc.constant(namespace),
    groupSelector: selector,
    ingress: fc.array(fc.record({ from: fc.array(groups, { minLength: 1, maxLength: 2 }) }), { maxLength: 2 }),
  });
