import fc from "fast-check";
import { describe, expect, it } from "vitest";
import type {
  ClusterNetworkPolicyArgs,
  NetworkPolicyArgs,
  NetworkPolicyPeer,
  NetworkPolicyPort,
  PolicySet,
} from "./arguments.js";
import { compileNetworkPolicies } from "./compile.js";
import { canonicalJson, type CompiledDirection, type CompiledPolicy, type CompiledRule } from "./compiled.js";
import { plainPolicy, policySet } from "./testing/arbitraries.js";

const endpoints = [
  { name: "web", labels: { app: "web" }, ports: [{ name: "http", port: 8080 }], addresses: ["10.1.0.5"] },
  { name: "db", labels: { app: "db" } },
  { name: "other", namespace: "far", labels: { app: "web" } },
];

const web = { matchLabels: { app: "web" } };
const db = { matchLabels: { app: "db" } };

const policy = (rest: Partial<NetworkPolicyArgs>): NetworkPolicyArgs => ({ name: "p", groupSelector: web, ...rest });

function compile(policies: NetworkPolicyArgs[], cluster: ClusterNetworkPolicyArgs[] = []): CompiledPolicy {
  return compileNetworkPolicies({ networkPolicies: policies, clusterNetworkPolicies: cluster, endpoints });
}

function endpoint(compiled: CompiledPolicy, name: string) {
  const found = compiled.endpoints.find((candidate) => candidate.name === name);
  if (!found) throw new Error(`no endpoint ${name}`);
  return found;
}

/** Rules as `precedence action identity protocol ports`, identities by name. */
function written(compiled: CompiledPolicy, { rules }: CompiledDirection): string[] {
  const names = new Map<number, string>([
    [0, "any"],
    [1, "host"],
    [2, "world4"],
    [3, "world6"],
  ]);
  for (const { identity, name } of compiled.endpoints) names.set(identity, name);
  for (const { id, cidr } of compiled.identities) names.set(id, cidr);
  return rules.map(({ precedence, action, identity, protocol, portStart, portEnd, code }: CompiledRule) => {
    const ports = portStart === portEnd ? portStart : `${portStart}-${portEnd}`;
    return `${precedence} ${action} ${names.get(identity)} ${protocol} ${ports}${code === undefined ? "" : `/${code}`}`;
  });
}

const ingressOfWeb = (
  from: NetworkPolicyPeer[] | undefined,
  ports?: NetworkPolicyPort[],
  rest: Partial<NetworkPolicyArgs> = {},
) => {
  const compiled = compile([policy({ ingress: [{ from, ports }], ...rest })]);
  return written(compiled, endpoint(compiled, "default/web").ingress);
};

describe("rules", () => {
  it("isolates what a policy selects, in its directions only", () => {
    const compiled = compile([policy({})]);
    expect(endpoint(compiled, "default/web")).toMatchObject({
      ingress: { enforce: true, rules: [] },
      egress: { enforce: false, rules: [] },
    });
    for (const name of ["default/db", "far/other"]) expect(endpoint(compiled, name).ingress.enforce).toBe(false);
  });

  it.each<[string, NetworkPolicyPeer[] | undefined, NetworkPolicyPort[] | undefined, string[]]>([
    ["every peer", undefined, undefined, ["0 allow any any 0-65535"]],
    ["a port", undefined, [{ port: 80 }], ["1 allow any TCP 80"]],
    ["a range that touches another", undefined, [{ port: 80, endPort: 90 }, { port: 91 }], ["1 allow any TCP 80-91"]],
    ["all ports of a protocol", undefined, [{ protocol: "UDP" }], ["1 allow any UDP 0-65535"]],
    ["a port of the destination by its name", undefined, [{ port: "http" }], ["1 allow any TCP 8080"]],
    ["a name that the destination lacks", undefined, [{ port: "https" }], []],
    ["a group of the own namespace", [{ groupSelector: db }], undefined, ["4 allow default/db any 0-65535"]],
    [
      "namespaces by their names",
      [{ namespaceSelector: { matchLabels: { "kubernetes.io/metadata.name": "far" } } }],
      [{ port: 1 }],
      ["5 allow far/other TCP 1"],
    ],
    ["the host", [{ entities: ["host"] }], [{ port: 1 }], ["5 allow host TCP 1"]],
    ["the world", [{ entities: ["world"] }], [{ port: 1 }], ["5 allow world4 TCP 1", "5 allow world6 TCP 1"]],
    [
      "a block without an exception, and the groups in it",
      [{ ipBlock: { cidr: "10.0.0.0/8", except: ["10.2.0.0/16"] } }],
      [{ port: 1 }],
      ["5 allow default/web TCP 1", "5 allow 10.0.0.0/8 TCP 1"],
    ],
    ["an ICMP type", undefined, [{ protocol: "ICMP", icmpType: 8 }], ["2 allow any ICMP 8"]],
    ["every ICMP type", undefined, [{ protocol: "ICMPv6" }], ["1 allow any ICMPv6 0-255"]],
    [
      "an ICMP code",
      undefined,
      [{ protocol: "ICMP", icmpType: 3, icmpCode: 4 }],
      ["3 allow any ICMP 3/4", "2 deny any ICMP 3"],
    ],
  ])("%s", (_name, from, ports, rules) => {
    expect(ingressOfWeb(from, ports)).toEqual(rules);
  });

  it("a rule for all makes one for a group superfluous", () => {
    const ingress = [{ ports: [{ port: 80 }] }, { from: [{ groupSelector: db }], ports: [{ port: 80 }, { port: 81 }] }];
    const compiled = compile([policy({ ingress })]);
    expect(written(compiled, endpoint(compiled, "default/web").ingress)).toEqual([
      "5 allow default/db TCP 81",
      "1 allow any TCP 80",
    ]);
  });

  it("a name means each destination's own port", () => {
    const compiled = compile([policy({ groupSelector: db, egress: [{ ports: [{ port: "http" }] }] })]);
    expect(written(compiled, endpoint(compiled, "default/db").egress)).toEqual(["5 allow default/web TCP 8080"]);
  });

  it("a policy of action Deny takes away from others, and isolates nobody", () => {
    const deny = policy({
      name: "deny",
      action: "Deny",
      ingress: [{ from: [{ groupSelector: db }], ports: [{ port: 80 }] }],
    });
    const alone = compile([deny]);
    expect(written(alone, endpoint(alone, "default/web").ingress)).toEqual([
      "5 deny default/db TCP 80",
      "0 allow any any 0-65535",
    ]);
    const both = compile([deny, policy({ ingress: [{ ports: [{ port: 80 }] }] })]);
    expect(written(both, endpoint(both, "default/web").ingress)).toEqual([
      "5 deny default/db TCP 80",
      "1 allow any TCP 80",
    ]);
  });

  it("groups with the same labels are one identity until a policy distinguishes them", () => {
    const twins = ["10.1.0.1", "10.2.0.1"].map((address, index) => ({ name: `t${index}`, addresses: [address] }));
    const identities = (networkPolicies: NetworkPolicyArgs[]) =>
      compileNetworkPolicies({ endpoints: twins, networkPolicies }).endpoints.map(({ identity }) => identity);
    expect(identities([])).toEqual([256, 256]);
    const block = policy({ ingress: [{ from: [{ ipBlock: { cidr: "10.1.0.0/16" } }] }] });
    expect(identities([block])).toEqual([256, 257]);
  });
});

/** Everything whose order means nothing, in another order. */
function shuffled(set: PolicySet, seed: number): PolicySet {
  let state = seed;
  const shuffle = <T>(list: readonly T[]): T[] =>
    list
      .map((item) => {
        state = (state * 1103515245 + 12345) % 2 ** 31;
        return { item, place: state };
      })
      .sort((a, b) => a.place - b.place)
      .map(({ item }) => item);
  const rules = <R extends { from?: unknown[]; to?: unknown[]; ports?: unknown[] }>(
    list: R[] | undefined,
  ): R[] | undefined =>
    list?.map((rule) => ({
      ...rule,
      ...(rule.from && { from: shuffle(rule.from) }),
      ...(rule.to && { to: shuffle(rule.to) }),
      ...(rule.ports && { ports: shuffle(rule.ports) }),
    }));
  const inside = <P extends NetworkPolicyArgs | ClusterNetworkPolicyArgs>(each: P): P => ({
    ...each,
    ...(each.ingress && { ingress: rules(each.ingress) }),
    ...(each.egress && { egress: rules(each.egress) }),
  });
  const unordered = (each: NetworkPolicyArgs): NetworkPolicyArgs => ({
    ...each,
    ...(each.ingress && { ingress: shuffle(each.ingress) }),
    ...(each.egress && { egress: shuffle(each.egress) }),
  });
  return {
    networkPolicies: shuffle((set.networkPolicies ?? []).map(inside).map(unordered)),
    clusterNetworkPolicies: shuffle((set.clusterNetworkPolicies ?? []).map(inside)),
    endpoints: shuffle(set.endpoints),
    namespaces: shuffle(set.namespaces ?? []),
  };
}

describe("for any policies", () => {
  it("order changes nothing", () => {
    fc.assert(
      fc.property(policySet, fc.nat(), (set, seed) => {
        expect(compileNetworkPolicies(shuffled(set, seed))).toEqual(compileNetworkPolicies(set));
      }),
    );
  });

  it("a policy said twice changes nothing", () => {
    fc.assert(
      fc.property(policySet, (set) => {
        const twice = (set.networkPolicies ?? []).flatMap((each) => [each, { ...each, name: `${each.name}-again` }]);
        expect(compileNetworkPolicies({ ...set, networkPolicies: twice }).hash).toBe(compileNetworkPolicies(set).hash);
      }),
    );
  });

  it("another policy changes the groups that it selects and no others", () => {
    fc.assert(
      fc.property(policySet, plainPolicy("x"), (set, another) => {
        const before = compileNetworkPolicies(set);
        const after = compileNetworkPolicies({ ...set, networkPolicies: [...(set.networkPolicies ?? []), another] });
        expect(after.identities).toEqual(before.identities);
        after.endpoints.forEach((changed, index) => {
          const { ingress, ...rest } = before.endpoints[index] as CompiledPolicy["endpoints"][number];
          expect(changed).toMatchObject(rest);
          if (!changed.name.startsWith("x/")) expect(changed.ingress).toEqual(ingress);
        });
      }),
    );
  });

  it("no two rules of a precedence match the same packet", () => {
    fc.assert(
      fc.property(policySet, (set) => {
        for (const { ingress, egress } of compileNetworkPolicies(set).endpoints) {
          for (const { rules } of [ingress, egress]) {
            rules.forEach((rule, index) => {
              const overlapping = rules
                .slice(0, index)
                .find(
                  (other) =>
                    other.precedence === rule.precedence &&
                    other.identity === rule.identity &&
                    other.protocol === rule.protocol &&
                    other.portStart <= rule.portEnd &&
                    rule.portStart <= other.portEnd &&
                    other.code === rule.code,
                );
              expect(overlapping).toBeUndefined();
              expect(rules[index - 1]?.precedence ?? 0xffff).toBeGreaterThanOrEqual(rule.precedence);
            });
          }
        }
      }),
    );
  });

  it("the hash is that of the rest", async () => {
    const { hash, ...rest } = compile([policy({})]);
    const digest = await crypto.subtle.digest("SHA-256", new TextEncoder().encode(canonicalJson(rest)));
    expect(hash).toBe(Buffer.from(digest).toString("hex"));
  });
});
