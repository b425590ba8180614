import { expect, it } from "vitest";
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
