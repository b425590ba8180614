/** Random NetworkPolicies of Kubernetes, and random packets in a small cluster, as questions for Cyclonus' oracle. */
import fc from "fast-check";
import type { KubernetesNetworkPolicy } from "../../../components/policy/index.js";
import type { CyclonusPeer, CyclonusPod, CyclonusQuestion, CyclonusTuple } from "./cyclonus.js";

/** A question, with the pods among its peers in Palisade's terms. */
export interface Question extends CyclonusQuestion {
  pods: CyclonusPod[];
}

const protocols = ["TCP", "UDP", "SCTP"] as const;
const portNumbers = [53, 80, 81, 8080];
const values = ["a", "b", "c"];

/** Of the families that a packet can have, the addresses in the cluster and outside, and prefixes around them. */
const worlds = {
  4: {
    pod: (index: number) => `10.0.${index % 3}.${index + 4}`,
    outside: ["10.0.0.200", "192.0.2.1", "198.51.100.1"],
    prefixes: ["0.0.0.0/0", "10.0.0.0/16", "10.0.1.0/24", "10.0.0.0/28", "10.0.0.4/32", "198.51.100.0/24"],
  },
  6: {
    pod: (index: number) => `fd00::${index % 3}:${index + 4}`,
    outside: ["fd00::f", "2001:db8::1", "2001:db8:1::1"],
    prefixes: ["::/0", "fd00::/16", "fd00::1:0/112", "fd00::/124", "fd00::4/128", "2001:db8::/48"],
  },
};

/**
 * Selectors on labels that everything has. On what lacks the label Cyclonus takes NotIn for false, Kubernetes for true;
 * there Palisade follows Kubernetes (selectors.test.ts).
 */
const selector = (keys: string[]) =>
  fc.oneof(
    fc.constant({}),
    fc
      .tuple(fc.constantFrom(...keys), fc.constantFrom(...values))
      .map(([key, value]) => ({ matchLabels: { [key]: value } })),
    fc.record({
      matchExpressions: fc.array(
        fc.record({
          key: fc.constantFrom(...keys),
          operator: fc.constantFrom("In" as const, "NotIn" as const),
          values: fc.uniqueArray(fc.constantFrom(...values), { minLength: 1, maxLength: 2 }),
        }),
        { minLength: 1, maxLength: 2 },
      ),
    }),
    fc.record({
      matchExpressions: fc
        .tuple(fc.constantFrom(...keys, "absent"), fc.constantFrom("Exists" as const, "DoesNotExist" as const))
        .map(([key, operator]) => [{ key, operator }]),
    }),
  );

const podSelector = selector(["app", "tier"]);
const namespaceSelector = selector(["ns"]);

const port = fc.oneof(
  fc.record({ protocol: fc.constantFrom(...protocols), port: fc.constantFrom(...portNumbers) }, { requiredKeys: [] }),
  fc.record({ protocol: fc.constantFrom(...protocols), port: fc.constantFrom("web", "dns") }),
  fc
    .tuple(fc.constantFrom(...protocols), fc.constantFrom(...portNumbers), fc.nat(100))
    .map(([protocol, start, length]) => ({ protocol, port: start, endPort: start + length })),
);

function policies(prefixes: string[]): fc.Arbitrary<KubernetesNetworkPolicy[]> {
  // A prefix, and of the smaller ones behind it in the list those that lie in it.
  const ipBlock = fc.constantFrom(...prefixes).chain((cidr) => {
    const inside = cidr.endsWith("/0") ? prefixes.slice(1) : cidr.endsWith("/16") ? prefixes.slice(2, 5) : [];
    return fc.record({ cidr: fc.constant(cidr), except: fc.subarray(inside) });
  });
  const peer = fc.oneof(
    fc.record({ podSelector }),
    fc.record({ namespaceSelector }),
    fc.record({ podSelector, namespaceSelector }),
    fc.record({ ipBlock }),
  );
  const [peers, ports] = [fc.array(peer, { maxLength: 3 }), fc.array(port, { maxLength: 3 })];
  const spec = fc.record({
    podSelector,
    policyTypes: fc.subarray(["Ingress", "Egress"], { minLength: 1 }),
    ingress: fc.array(fc.record({ from: peers, ports }), { maxLength: 3 }),
    egress: fc.array(fc.record({ to: peers, ports }), { maxLength: 3 }),
  });
  return fc
    .array(fc.tuple(fc.constantFrom(...values), spec), { minLength: 1, maxLength: 5 })
    .map((list) =>
      list.map(([namespace, content], index) => ({ metadata: { name: `p${index}`, namespace }, spec: content })),
    );
}

const ports = fc.uniqueArray(fc.constantFrom(...portNumbers), { minLength: 2, maxLength: 2 }).chain((numbers) =>
  fc.tuple(fc.constantFrom(...protocols), fc.constantFrom(...protocols)).map(([web, dns]) => [
    { name: "web", port: numbers[0] as number, protocol: web },
    { name: "dns", port: numbers[1] as number, protocol: dns },
  ]),
);

/** @param tuples packets in each question */
export function question(tuples: number): fc.Arbitrary<Question> {
  return fc.constantFrom(4 as const, 6 as const).chain((family) => {
    const world = worlds[family];
    const pods = fc
      .array(
        fc.record({
          namespace: fc.constantFrom(...values),
          labels: fc.record({ app: fc.constantFrom(...values), tier: fc.constantFrom(...values) }),
          ports,
        }),
        { minLength: 4, maxLength: 9 },
      )
      .map((list) => list.map((pod, index) => ({ ...pod, name: `pod-${index}`, address: world.pod(index) })));
    return pods.chain((made) => {
      const peers: CyclonusPeer[] = [
        ...made.map(({ namespace, labels, address }) => ({
          namespace,
          namespaceLabels: { ns: namespace, "kubernetes.io/metadata.name": namespace },
          labels,
          address,
        })),
        ...world.outside.map((address) => ({ address })),
      ];
      const end = fc.nat(peers.length - 1);
      const tuple = fc
        .record({
          from: end,
          to: end,
          protocol: fc.constantFrom(...protocols),
          port: fc.constantFrom(...portNumbers, 1, 65535),
        })
        .map((drawn): CyclonusTuple => {
          const named = made[drawn.to]?.ports.find(
            ({ port, protocol }) => port === drawn.port && protocol === drawn.protocol,
          );
          return { ...drawn, name: named?.name ?? "" };
        });
      return fc.record({
        policies: policies(world.prefixes),
        peers: fc.constant(peers),
        pods: fc.constant(made),
        tuples: fc.array(tuple, { minLength: tuples, maxLength: tuples, size: "max" }),
      });
    });
  });
}
