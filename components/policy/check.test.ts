import { describe, expect, it } from "vitest";
import { ArgumentError } from "../internal/arguments.js";
import type { PolicySet } from "./arguments.js";
import { compileNetworkPolicies } from "./compile.js";

/** Problems as `path: value: reason`. */
function problems(set: unknown): string[] {
  try {
    compileNetworkPolicies(set as PolicySet);
    return [];
  } catch (error) {
    if (!(error instanceof ArgumentError)) throw error;
    return error.problems.map(({ path, value, reason }) => `${path}: ${value ?? ""}: ${reason}`);
  }
}

const right = {
  networkPolicies: [
    {
      name: "web",
      namespace: "shop",
      groupSelector: { matchLabels: { app: "web" } },
      policyTypes: ["Ingress", "Egress"],
      action: "Allow",
      ingress: [
        {
          from: [{ groupSelector: { matchExpressions: [{ key: "app", operator: "In", values: ["front"] }] } }],
          ports: [
            { protocol: "TCP", port: 8000, endPort: 8080 },
            { protocol: "UDP", port: "dns" },
          ],
        },
      ],
      egress: [
        {
          to: [{ ipBlock: { cidr: "10.0.0.0/8", except: ["10.1.0.0/16"] } }, { entities: ["host"] }],
          ports: [{ protocol: "ICMP", icmpType: 8, icmpCode: 0 }],
        },
      ],
    },
  ],
  clusterNetworkPolicies: [
    {
      name: "guard",
      tier: "Admin",
      priority: 10,
      subject: { namespaceSelector: {} },
      ingress: [{ name: "first", action: "Pass", from: [{ entities: ["all"] }] }],
    },
  ],
  endpoints: [
    {
      name: "web-1",
      namespace: "shop",
      labels: { app: "web", "example.com/tier": "" },
      ports: [{ name: "dns", protocol: "UDP", port: 53 }],
      addresses: ["10.0.0.1", "fd00::1"],
    },
  ],
  namespaces: [{ name: "shop", labels: { team: "a" } }],
};

it("accepts everything that is right", () => {
  expect(problems(right)).toEqual([]);
});

type Path = readonly (string | number)[];

/** The right policies with one field changed; undefined takes it away. */
function changed(path: Path, value: unknown): unknown {
  const copy = structuredClone(right) as never as Record<string | number, unknown>;
  const parent = path.slice(0, -1).reduce<Record<string | number, unknown>>((at, key) => at[key] as never, copy);
  parent[path.at(-1) as string] = value;
  return copy;
}

const policy = ["networkPolicies", 0] as const;
const ingress = [...policy, "ingress", 0] as const;
const egress = [...policy, "egress", 0] as const;
const cluster = ["clusterNetworkPolicies", 0] as const;
const endpoint = ["endpoints", 0] as const;

/** Which field is wrong, how, and what is said of it. */
const wrong: [path: Path, value: unknown, problem: RegExp][] = [
  [["policies"], [], /^policies: : no such argument; there are networkPolicies/],
  [["endpoints"], undefined, /^endpoints: : is required/],
  [["endpoints"], {}, /^endpoints: {}: must be a list/],
  [policy, null, /^networkPolicies\[0\]: null: must be an object/],
  [[...policy, "podSelector"], {}, /^networkPolicies\[0\]\.podSelector: : no such argument/],
  [[...policy, "name"], undefined, /^networkPolicies\[0\]\.name: : is required/],
  [[...policy, "name"], "Web", /^networkPolicies\[0\]\.name: "Web": must be a DNS name/],
  [[...policy, "namespace"], "a.b", /^networkPolicies\[0\]\.namespace: "a.b": must be a DNS label/],
  [[...policy, "groupSelector"], undefined, /^networkPolicies\[0\]\.groupSelector: : is required/],
  [[...policy, "groupSelector"], "web", /groupSelector: "web": must be an object/],
  [[...policy, "groupSelector", "matchLabels"], { app: 1 }, /matchLabels\["app"\]: 1: must be a label's value/],
  [[...policy, "groupSelector", "matchLabels"], { "a b": "" }, /matchLabels\["a b"\]: "a b": must be a label's key/],
  [[...policy, "policyTypes"], [], /policyTypes: \[\]: must not be empty/],
  [[...policy, "policyTypes", 0], "ingress", /policyTypes\[0\]: "ingress": must be Ingress or Egress/],
  [[...policy, "policyTypes", 0], "Egress", /policyTypes: \["Egress","Egress"\]: names a direction twice/],
  [[...policy, "policyTypes"], ["Ingress"], /egress: : would have no effect: policyTypes lacks Egress/],
  [[...policy, "action"], "Pass", /action: "Pass": must be Allow or Deny/],
  [[...policy, "ingress"], "all", /ingress: "all": must be a list/],
  [[...ingress, "to"], [], /ingress\[0\]\.to: : no such argument; there are from, ports/],
  [[...ingress, "from"], [], /ingress\[0\]\.from: \[\]: must not be empty; leave it out where everything is meant/],
  [[...ingress, "from", 0], {}, /from\[0\]: : must have selectors of groups, or an ipBlock, or entities/],
  [[...ingress, "from", 0, "entities"], ["host"], /from\[0\]: : must have selectors of groups, or an ipBlock/],
  [[...ingress, "from", 0, "podSelector"], {}, /from\[0\]\.podSelector: : no such argument/],
  [[...ingress, "from", 0, "groupSelector", "matchExpressions", 0, "key"], "-", /key: "-": must be a label's key/],
  [[...ingress, "from", 0, "groupSelector", "matchExpressions", 0, "operator"], "Gt", /operator: "Gt": must be In or/],
  [
    [...ingress, "from", 0, "groupSelector", "matchExpressions", 0, "values"],
    [],
    /values: \[\]: must not be empty with In/,
  ],
  [
    [...ingress, "from", 0, "groupSelector", "matchExpressions", 0, "values", 0],
    "a b",
    /values\[0\]: "a b": must be a la/,
  ],
  [
    [...ingress, "from", 0, "groupSelector", "matchExpressions", 0, "operator"],
    "Exists",
    /values: .*means nothing with/,
  ],
  [[...ingress, "ports"], [], /ports: \[\]: must not be empty/],
  [
    [...ingress, "ports", 0, "protocol"],
    "tcp",
    /ports\[0\]\.protocol: "tcp": must be TCP or UDP or SCTP or ICMP or ICMPv6/,
  ],
  [[...ingress, "ports", 0, "port"], 0, /ports\[0\]\.port: 0: must be a whole number from 1 to 65535/],
  [[...ingress, "ports", 0, "port"], "http", /endPort: 8080: needs a number in port/],
  [[...ingress, "ports", 0, "endPort"], 7999, /endPort: 7999: must not be less than port, which is 8000/],
  [[...ingress, "ports", 0, "endPort"], 70000, /endPort: 70000: must be a whole number from 1 to 65535/],
  [[...ingress, "ports", 0, "icmpType"], 8, /icmpType: 8: TCP has no types; use port/],
  [[...ingress, "ports", 1, "port"], "DNS", /ports\[1\]\.port: "DNS": must be a port's name/],
  [[...egress, "from"], [], /egress\[0\]\.from: : no such argument; there are to, ports/],
  [[...egress, "to", 0, "ipBlock"], {}, /ipBlock\.cidr: : is required/],
  [[...egress, "to", 0, "ipBlock", "cidr"], "10.0.0.0", /cidr: "10.0.0.0": must be a range of IPv4 or IPv6 addresses/],
  [[...egress, "to", 0, "ipBlock", "cidr"], "10.0.0.0/33", /cidr: "10.0.0.0\/33": must be a range/],
  [[...egress, "to", 0, "ipBlock", "cidr"], "10.0.0.1/8", /cidr: "10.0.0.1\/8": has bits set .*; write 10.0.0.0\/8/],
  [[...egress, "to", 0, "ipBlock", "cidr"], "::ffff:1.2.3.4/128", /cidr: .*: must be a range of IPv4 or IPv6/],
  [[...egress, "to", 0, "ipBlock", "except", 0], "11.0.0.0/16", /except\[0\]: .*: must lie inside of 10.0.0.0\/8/],
  [
    [...egress, "to", 0, "ipBlock", "except", 0],
    "10.0.0.0/8",
    /except\[0\]: .*: must lie inside of 10.0.0.0\/8 and be/,
  ],
  [[...egress, "to", 1, "entities", 0], "internet", /entities\[0\]: "internet": must be host or world or all/],
  [[...egress, "to", 1, "entities"], [], /entities: \[\]: must not be empty/],
  [[...egress, "ports", 0, "port"], 7, /ports\[0\]\.port: 7: ICMP has no ports; use icmpType and icmpCode/],
  [[...egress, "ports", 0, "icmpType"], 256, /icmpType: 256: must be a whole number from 0 to 255/],
  [[...egress, "ports", 0, "icmpCode"], -1, /icmpCode: -1: must be a whole number from 0 to 255/],
  [[...egress, "ports", 0, "icmpType"], undefined, /icmpCode: 0: needs icmpType/],
  [[...cluster, "name"], "", /clusterNetworkPolicies\[0\]\.name: "": must be a DNS name/],
  [[...cluster, "tier"], "Default", /tier: "Default": must be Admin or Baseline/],
  [[...cluster, "priority"], 1001, /priority: 1001: must be a whole number from 0 to 1000/],
  [[...cluster, "priority"], undefined, /priority: : is required/],
  [[...cluster, "subject"], undefined, /subject: : is required/],
  [[...cluster, "subject", "pods"], {}, /subject\.pods: : no such argument/],
  [[...cluster, "subject", "namespaceSelector"], [], /subject\.namespaceSelector: \[\]: must be an object/],
  [[...cluster, "ingress", 0, "action"], undefined, /ingress\[0\]\.action: : is required/],
  [[...cluster, "ingress", 0, "action"], "Accept", /ingress\[0\]\.action: "Accept": must be Allow or Deny or Pass/],
  [[...cluster, "ingress", 0, "from"], undefined, /ingress\[0\]\.from: : is required/],
  [[...cluster, "ingress", 0, "name"], "", /ingress\[0\]\.name: "": must be a text that is not empty/],
  [[...endpoint, "name"], "web_1", /endpoints\[0\]\.name: "web_1": must be a DNS label/],
  [[...endpoint, "namespace"], "", /endpoints\[0\]\.namespace: "": must be a DNS label/],
  [[...endpoint, "labels"], [], /endpoints\[0\]\.labels: \[\]: must be an object/],
  [[...endpoint, "ports", 0, "name"], "5", /ports\[0\]\.name: "5": must be a port's name/],
  [[...endpoint, "ports", 0, "protocol"], "ICMP", /ports\[0\]\.protocol: "ICMP": must be TCP or UDP or SCTP/],
  [[...endpoint, "ports", 0, "port"], 65536, /ports\[0\]\.port: 65536: must be a whole number/],
  [[...endpoint, "ports", 1], { name: "dns", port: 5 }, /ports\[1\]\.name: "dns": is the name of another port/],
  [[...endpoint, "addresses", 0], "10.0.0.1/32", /addresses\[0\]: .*: must be an IPv4 or IPv6 address/],
  [[...endpoint, "addresses", 1], "10.0.0.1", /addresses\[1\]: .*: is the address of endpoints\[0\] already/],
  [
    ["endpoints", 1],
    { name: "web-1", namespace: "shop" },
    /endpoints\[1\]\.name: .* is the name of endpoints\[0\] too/,
  ],
  [
    ["networkPolicies", 1],
    right.networkPolicies[0],
    /networkPolicies\[1\]\.name: .* is the name of networkPolicies\[0\]/,
  ],
  [["namespaces", 0, "name"], "Shop", /namespaces\[0\]\.name: "Shop": must be a DNS label/],
  [["namespaces", 1], { name: "shop" }, /namespaces\[1\]\.name: "shop": is the name of namespaces\[0\] too/],
  [["namespaces", 0, "labels"], { "kubernetes.io/metadata.name": "x" }, /must be the namespace's name; leave it out/],
];

describe("refuses", () => {
  it.each(wrong.map(([path, value, problem]) => ({ field: path.join("."), value, problem, path })))(
    "$field = $value",
    ({ path, value, problem }) => {
      expect(problems(changed(path, value))).toContainEqual(expect.stringMatching(problem));
    },
  );

  it("says everything that is wrong at once", () => {
    const set = changed([...policy, "name"], "Web") as { endpoints: { name: string }[] };
    (set.endpoints[0] as { name: string }).name = "";
    expect(problems(set)).toHaveLength(2);
  });
});
