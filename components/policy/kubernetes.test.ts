import { describe, expect, it } from "vitest";
import { policyObjects } from "../kubernetes/policy-objects.js";
import { compileNetworkPolicies } from "./compile.js";
import { networkPolicyFromKubernetes } from "./kubernetes.js";

it("translates every field", () => {
  expect(
    networkPolicyFromKubernetes({
      apiVersion: "networking.k8s.io/v1",
      kind: "NetworkPolicy",
      metadata: { name: "web", namespace: "shop" },
      spec: {
        podSelector: { matchLabels: { app: "web" } },
        policyTypes: ["Ingress", "Egress"],
        ingress: [
          { from: [{ podSelector: {}, namespaceSelector: {} }], ports: [{ protocol: "UDP", port: 1, endPort: 2 }] },
        ],
        egress: [{ to: [{ ipBlock: { cidr: "10.0.0.1/8", except: ["10.1.0.0/16"] } }], ports: [{ port: "http" }] }],
      },
    }),
  ).toEqual({
    name: "web",
    namespace: "shop",
    groupSelector: { matchLabels: { app: "web" } },
    policyTypes: ["Ingress", "Egress"],
    ingress: [
      { from: [{ groupSelector: {}, namespaceSelector: {} }], ports: [{ protocol: "UDP", port: 1, endPort: 2 }] },
    ],
    egress: [{ to: [{ ipBlock: { cidr: "10.0.0.0/8", except: ["10.1.0.0/16"] } }], ports: [{ port: "http" }] }],
  });
});

it("writes out what Kubernetes tolerates", () => {
  const metadata = { name: "p" };
  expect(networkPolicyFromKubernetes({ metadata, spec: { ingress: [{ from: [], ports: null }] } })).toEqual({
    name: "p",
    groupSelector: {},
    policyTypes: ["Ingress"],
    ingress: [{}],
  });
  expect(networkPolicyFromKubernetes({ metadata, spec: { egress: [{}] } }).policyTypes).toEqual(["Ingress", "Egress"]);
  expect(
    networkPolicyFromKubernetes({ metadata, spec: { policyTypes: ["Ingress"], egress: [{}] } }),
  ).not.toHaveProperty("egress");
});

/**
 * What Kubernetes' API server fills in (pkg/apis/networking/v1/defaults.go), as a policy is written and as it is meant.
 */
describe("defaults of directions", () => {
  const rule = [{}];
  const cases: [written: object, types: string[]][] = [
    [{}, ["Ingress"]],
    [{ egress: [] }, ["Ingress"]],
    [{ egress: null }, ["Ingress"]],
    [{ ingress: [] }, ["Ingress"]],
    [{ egress: rule }, ["Ingress", "Egress"]],
    [{ ingress: [], egress: rule }, ["Ingress", "Egress"]],
    [{ policyTypes: null, egress: [] }, ["Ingress"]],
    [{ policyTypes: ["Egress"], egress: [] }, ["Egress"]],
    [{ policyTypes: ["Ingress", "Egress"] }, ["Ingress", "Egress"]],
  ];
  const endpoints = [{ name: "web" }];

  it.each(cases)("%j isolates in %j, in Palisade's own form too", (written, types) => {
    const own = { name: "p", groupSelector: {}, ...written } as never;
    const [{ ingress, egress }] = compileNetworkPolicies({ endpoints, networkPolicies: [own] }).endpoints as never as [
      { ingress: { enforce: boolean }; egress: { enforce: boolean } },
    ];
    expect([ingress.enforce, egress.enforce]).toEqual([types.includes("Ingress"), types.includes("Egress")]);
    for (const cilium of [true, false]) {
      expect(policyObjects({ networkPolicies: [own], cilium })[0]!.spec).toHaveProperty("policyTypes", types);
    }
  });

  it.each([
    ...cases,
    [{ policyTypes: [], egress: [] }, ["Ingress"]],
    [{ policyTypes: [], egress: rule }, ["Ingress", "Egress"]],
  ] as typeof cases)("%j means %j when it is translated", (written, types) => {
    const { policyTypes } = networkPolicyFromKubernetes({ metadata: { name: "p" }, spec: written });
    expect(policyTypes).toEqual(types);
  });
});

describe("null in a Kubernetes policy", () => {
  it("is as absent as a field that is not there", () => {
    const metadata = { name: "p" };
    expect(networkPolicyFromKubernetes({ metadata, spec: null })).toEqual({
      name: "p",
      groupSelector: {},
      policyTypes: ["Ingress"],
    });
    const peer = { podSelector: null, namespaceSelector: { matchLabels: null, matchExpressions: null }, ipBlock: null };
    const spec = {
      podSelector: null,
      policyTypes: ["Ingress", "Ingress"],
      ingress: [{ from: [peer as never], ports: [{ protocol: null, port: null, endPort: null }] }],
      egress: null,
    };
    expect(networkPolicyFromKubernetes({ metadata, spec })).toEqual({
      name: "p",
      groupSelector: {},
      policyTypes: ["Ingress"],
      ingress: [{ from: [{ namespaceSelector: {} }], ports: [{}] }],
    });
  });

  it.each<[string, object]>([
    ["a rule", { ingress: [null] }],
    ["a peer", { ingress: [{ from: [null] }] }],
    ["a port", { ingress: [{ ports: [null] }] }],
  ])("is refused for %s, which would let everything pass", (_what, spec) => {
    const policy = networkPolicyFromKubernetes({ metadata: { name: "p" }, spec });
    expect(() => compileNetworkPolicies({ endpoints: [], networkPolicies: [policy] })).toThrow("must be an object");
  });
});
