import { describe, expect, it } from "vitest";
import { record, settled } from "../internal/testing/recorder.js";
import type { ClusterNetworkPolicyArgs, NetworkPolicyArgs, NetworkPolicyPort } from "../policy/index.js";
import { NetworkPolicies } from "./network-policies.js";
import { policyObjects } from "./policy-objects.js";

const web = { name: "web", namespace: "shop", groupSelector: { matchLabels: { app: "web" } } } as const;
const front = { groupSelector: { matchLabels: { app: "front" } } };
const one = (policy: NetworkPolicyArgs) => policyObjects({ networkPolicies: [policy], cilium: true })[0]!;
const admin: ClusterNetworkPolicyArgs = { name: "admin", tier: "Admin", priority: 7, subject: {} };

describe("NetworkPolicies", () => {
  it("is a NetworkPolicy where Kubernetes can say it, whether the cluster has Cilium or not", () => {
    const policy: NetworkPolicyArgs = {
      ...web,
      ingress: [
        {
          from: [front, { namespaceSelector: {} }],
          ports: [{ port: "http" }, { protocol: "UDP", port: 1, endPort: 2 }],
        },
        { from: [{ ipBlock: { cidr: "192.0.2.0/24", except: ["192.0.2.128/25"] } }] },
      ],
    };
    const expected = {
      apiVersion: "networking.k8s.io/v1",
      kind: "NetworkPolicy",
      metadata: { name: "web", namespace: "shop" },
      spec: {
        podSelector: web.groupSelector,
        policyTypes: ["Ingress"],
        ingress: [
          {
            from: [{ podSelector: front.groupSelector }, { namespaceSelector: {} }],
            ports: [{ port: "http" }, { protocol: "UDP", port: 1, endPort: 2 }],
          },
          { from: [{ ipBlock: { cidr: "192.0.2.0/24", except: ["192.0.2.128/25"] } }] },
        ],
      },
    };
    expect(one(policy)).toEqual(expected);
    expect(policyObjects({ networkPolicies: [policy] })).toEqual([expected]);
  });

  it("denies by Cilium without isolating anybody", () => {
    expect(one({ ...web, action: "Deny", ingress: [{ from: [front], ports: [{ port: 80 }] }], egress: [{}] })).toEqual({
      apiVersion: "cilium.io/v2",
      kind: "CiliumNetworkPolicy",
      metadata: { name: "web", namespace: "shop" },
      spec: {
        endpointSelector: { matchLabels: { "k8s:app": "web" } },
        enableDefaultDeny: { ingress: false, egress: false },
        ingressDeny: [
          {
            fromEndpoints: [{ matchLabels: { "k8s:app": "front", "k8s:io.kubernetes.pod.namespace": "shop" } }],
            toPorts: [{ ports: [{ port: "80", protocol: "TCP" }] }],
          },
        ],
        egressDeny: [{ toEntities: ["all"] }],
      },
    });
  });

  it("is nothing where a denial has no rules, which Cilium refuses", () => {
    expect(policyObjects({ networkPolicies: [{ ...web, action: "Deny", ingress: [] }], cilium: true })).toEqual([]);
  });

  it("isolates by Cilium as by Kubernetes, also a direction without rules", () => {
    const policy = one({ ...web, policyTypes: ["Ingress", "Egress"], ingress: [{ from: [{ entities: ["host"] }] }] });
    expect(policy.spec).toMatchObject({
      enableDefaultDeny: { ingress: true, egress: true },
      ingress: [{ fromEntities: ["host"] }],
      egress: [{}],
    });
  });

  it("writes a rule for each kind of peer, and apart for ports and ICMP", () => {
    const { spec } = one({
      ...web,
      ingress: [
        {
          from: [front, { ipBlock: { cidr: "192.0.2.0/24" } }, { entities: ["world"] }],
          ports: [{ protocol: "SCTP" }, { protocol: "ICMPv6", icmpType: 128 }],
        },
      ],
    });
    const { ingress } = spec as { ingress: object[] };
    const sctp = { toPorts: [{ ports: [{ port: "0", protocol: "SCTP" }] }] };
    const echo = { icmps: [{ fields: [{ family: "IPv6", type: 128 }] }] };
    expect(ingress).toHaveLength(6);
    expect(ingress.slice(2)).toEqual([
      { fromCIDRSet: [{ cidr: "192.0.2.0/24" }], ...sctp },
      { fromCIDRSet: [{ cidr: "192.0.2.0/24" }], ...echo },
      { fromEntities: ["world"], ...sctp },
      { fromEntities: ["world"], ...echo },
    ]);
  });

  it("selects by a namespace's labels pods only, also with requirements that everything else satisfies", () => {
    const requirement = { key: "team", operator: "NotIn" as const, values: ["a"] };
    const { spec } = one({
      ...web,
      action: "Deny",
      ingress: [{ from: [{ namespaceSelector: { matchExpressions: [requirement] } }] }],
    });
    expect(spec).toHaveProperty("ingressDeny", [
      {
        fromEndpoints: [
          {
            matchLabels: {},
            matchExpressions: [
              { ...requirement, key: "k8s:io.cilium.k8s.namespace.labels.team" },
              { key: "k8s:io.kubernetes.pod.namespace", operator: "Exists" },
            ],
          },
        ],
      },
    ]);
  });

  it("has as many lists of ports as Cilium wants", () => {
    const ports = Array.from({ length: 81 }, (_, index): NetworkPolicyPort => ({ port: index + 1 }));
    const { spec } = one({ ...web, ingress: [{ from: [{ entities: ["world"] }], ports }] });
    const [{ toPorts }] = (spec as { ingress: [{ toPorts: { ports: object[] }[] }] }).ingress;
    expect(toPorts.map((list) => list.ports.length)).toEqual([40, 40, 1]);
  });

  it("has tiers as ClusterNetworkPolicies", () => {
    const policy: ClusterNetworkPolicyArgs = {
      ...admin,
      subject: { groupSelector: { matchLabels: { app: "web" } } },
      ingress: [{ name: "front", action: "Allow", from: [front], ports: [{ port: 80 }, { protocol: "UDP" }] }],
      egress: [
        { action: "Pass", to: [{ ipBlock: { cidr: "192.0.2.0/24" } }], ports: [{ port: 80, endPort: 90 }] },
        { action: "Deny", to: [{ entities: ["all"] }] },
      ],
    };
    expect(policyObjects({ clusterNetworkPolicies: [policy], cilium: true })).toEqual([
      {
        apiVersion: "policy.networking.k8s.io/v1alpha2",
        kind: "ClusterNetworkPolicy",
        metadata: { name: "admin" },
        spec: {
          tier: "Admin",
          priority: 7,
          subject: { pods: { namespaceSelector: {}, podSelector: { matchLabels: { app: "web" } } } },
          ingress: [
            {
              name: "front",
              action: "Accept",
              from: [{ pods: { namespaceSelector: {}, podSelector: front.groupSelector } }],
              protocols: [
                { tcp: { destinationPort: { number: 80 } } },
                { udp: { destinationPort: { range: { start: 1, end: 65535 } } } },
              ],
            },
          ],
          egress: [
            {
              action: "Pass",
              to: [{ networks: ["192.0.2.0/24"] }],
              protocols: [{ tcp: { destinationPort: { range: { start: 80, end: 90 } } } }],
            },
            { action: "Deny", to: [{ networks: ["0.0.0.0/0", "::/0"] }] },
          ],
        },
      },
    ]);
  });

  it("registers each object under a name that stays when others come and go", async () => {
    const registrations = await record({ answer: () => ({}) });
    new NetworkPolicies("shop", {
      cilium: true,
      networkPolicies: [web, { ...web, name: "no", action: "Deny", ingress: [{}] }],
      clusterNetworkPolicies: [admin],
    });
    await settled();
    expect(registrations.map(({ urn }) => urn.replace(/^.*::palisade::/, "")).sort()).toEqual([
      "palisade:kubernetes:NetworkPolicies$kubernetes:cilium.io/v2:CiliumNetworkPolicy::shop-shop.no",
      "palisade:kubernetes:NetworkPolicies$kubernetes:networking.k8s.io/v1:NetworkPolicy::shop-shop.web",
      "palisade:kubernetes:NetworkPolicies$kubernetes:policy.networking.k8s.io/v1alpha2:ClusterNetworkPolicy::shop-admin",
      "palisade:kubernetes:NetworkPolicies::shop",
    ]);
  });

  const tier = (rule: object) => ({ cilium: true, clusterNetworkPolicies: [{ ...admin, ...rule }] });
  const policy = (change: object) => ({ cilium: true, networkPolicies: [{ ...web, ...change }] });
  it.each<[string, object]>([
    [
      "networkPolicies[0].action: Kubernetes' NetworkPolicy has no rules that deny; it needs Cilium",
      {
        networkPolicies: [{ ...web, action: "Deny" }],
      },
    ],
    [
      "networkPolicies[0].ingress[0].from[1].entities: Kubernetes' NetworkPolicy has no entities",
      {
        networkPolicies: [{ ...web, ingress: [{ from: [front, { entities: ["host"] }] }] }],
      },
    ],
    [
      "networkPolicies[0].egress[0].ports[0].protocol: Kubernetes' NetworkPolicy has no ICMP",
      {
        networkPolicies: [{ ...web, egress: [{ ports: [{ protocol: "ICMP" }] }] }],
      },
    ],
    ["clusterNetworkPolicies[0]: Kubernetes has no tiers", { clusterNetworkPolicies: [admin] }],
    ["networkPolicies[0].ingress[0].from = []: must not be empty", policy({ ingress: [{ from: [] }] })],
    ["ports[0].icmpType: is required: Cilium", policy({ ingress: [{ ports: [{ protocol: "ICMP" }] }] })],
    [
      "ports[0].icmpCode = 4: Cilium looks at the type only",
      policy({ ingress: [{ ports: [{ protocol: "ICMP", icmpType: 3, icmpCode: 4 }] }] }),
    ],
    [
      'from[0].entities = ["host"]: on Kubernetes a node reaches its own pods',
      policy({ action: "Deny", ingress: [{ from: [{ entities: ["host"] }] }] }),
    ],
    [
      "ingress[0].from[0].ipBlock: a ClusterNetworkPolicy knows sources by selectors only",
      tier({ ingress: [{ action: "Deny", from: [{ ipBlock: { cidr: "192.0.2.0/24" } }] }] }),
    ],
    [
      'egress[0].to[0].entities = ["world"]: a ClusterNetworkPolicy knows all',
      tier({ egress: [{ action: "Deny", to: [{ entities: ["world"] }] }] }),
    ],
    [
      "egress[0].to[0].ipBlock.except",
      tier({ egress: [{ action: "Deny", to: [{ ipBlock: { cidr: "192.0.2.0/24", except: ["192.0.2.0/25"] } }] }] }),
    ],
    [
      'ingress[0].ports[0].port = "http": names of ports have no protocol',
      tier({ ingress: [{ action: "Deny", from: [front], ports: [{ port: "http" }] }] }),
    ],
    [
      "ingress[0].ports[0].protocol",
      tier({ ingress: [{ action: "Deny", from: [front], ports: [{ protocol: "ICMP" }] }] }),
    ],
    [
      "ingress: has 26 items; a ClusterNetworkPolicy takes 25",
      tier({ ingress: Array.from({ length: 26 }, () => ({ action: "Deny", from: [front] })) }),
    ],
    [
      "clusterNetworkPolicies[1].priority = 7: is that of clusterNetworkPolicies[0] too",
      { cilium: true, clusterNetworkPolicies: [admin, { ...admin, name: "other" }] },
    ],
    ["endpoints: no such argument", { endpoints: [] }],
  ])("refuses %s", async (message, args) => {
    await record({ answer: () => ({}) });
    expect(() => new NetworkPolicies("shop", args)).toThrow(message);
  });
});
