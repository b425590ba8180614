import fc from "fast-check";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ArgumentError } from "../../../../components/index.js";
import { policyObjects } from "../../../../components/kubernetes/index.js";
import { namespaceNames, policySet } from "../../../../components/policy/testing/arbitraries.js";
import { digest } from "../../../../components/internal/testing/answers.js";
import { report } from "../../../support/acceptance/report.js";
import type { Untyped } from "./backend.js";
import { AzureBackend } from "./azure.js";
import { cases, groupContract } from "./contract.js";
import { HostBackend } from "./host.js";
import { KubernetesBackend, podOf } from "./kubernetes.js";
import { publishedCrds, readCrd } from "./published-crds.js";

groupContract(new HostBackend());
groupContract(new AzureBackend());
const kubernetes = new KubernetesBackend();
groupContract(kubernetes);

describe("Kubernetes' own part", () => {
  const backend = new KubernetesBackend();
  const started = Date.now();
  const group = {
    containers: [
      { name: "web", image: `registry.example/web@${digest}`, resources: { requests: { cpu: 1, memoryInGB: 1 } } },
    ],
  };
  const seen = { refusal: "", runtime: "", policies: 0, kinds: "", unknown: "" };
  beforeAll(() => backend.start());
  afterAll(async () => {
    await backend.stop();
    report({
      table: "clouds",
      id: "K1",
      part: "objects",
      observed:
        `${kubernetes.taken} groups by server-side apply, dry and real, with strict validation and in namespaces that enforce ` +
        "the Pod Security Standard restricted: Deployments, Pods, Services, NetworkPolicies, Secrets, no warning; a missing " +
        `RuntimeClass is refused, one that is there is taken; ${seen.policies} random policies as ${seen.kinds}, by the ` +
        "definitions of Cilium 1.20.2 and network-policy-api 0.2.0",
      control: `the same pod without its security context: ${seen.refusal}; an entity that Cilium does not have: ${seen.unknown}`,
      pass:
        kubernetes.taken === cases.length &&
        [seen.refusal, seen.runtime, seen.unknown].every((text) => text !== "") &&
        seen.policies > 0,
      seconds: (Date.now() - started) / 1000,
      evidence: `RuntimeClass: ${seen.runtime}`,
    });
  });

  it("control: without its security context the pod is refused, and the Deployment gets a warning", async () => {
    const objects = await backend.objects("bare", group);
    const deployment = objects.find(({ kind }) => kind === "Deployment") as Untyped;
    delete deployment.spec.template.spec.securityContext;
    for (const container of deployment.spec.template.spec.containers) delete container.securityContext;
    const warned = await backend.cluster.apply(deployment);
    expect(warned.warnings).toContain('would violate PodSecurity \\"restricted');
    const { status, body } = await backend.cluster.apply(podOf([deployment]));
    expect(status).toBe(403);
    expect(body["message"]).toMatch(/violates PodSecurity "restricted:latest".*allowPrivilegeEscalation.*runAsNonRoot/);
    seen.refusal = body["message"] as string;
  });

  it("runs in a RuntimeClass of the cluster, and in none that is not there", async () => {
    const args = { ...group, runtimeClassName: "vm" };
    const objects = await backend.objects("isolated", args);
    const absent = await backend.cluster.apply(podOf(objects));
    expect(absent.status).toBe(403);
    expect(absent.body["message"]).toContain('RuntimeClass "vm" not found');
    const made = await backend.cluster.apply({
      apiVersion: "node.k8s.io/v1",
      kind: "RuntimeClass",
      metadata: { name: "vm" },
      handler: "kata",
    });
    expect(made.status).toBe(201);
    const present = await backend.cluster.apply(podOf(objects));
    expect(present.status, JSON.stringify(present.body)).toBe(201);
    expect(present.body["spec"].runtimeClassName).toBe("vm");
    seen.runtime = absent.body["message"] as string;
  });

  it("control: the server refuses fields that it does not know", async () => {
    const [policy] = await backend.objects("typed", group);
    const { status, body } = await backend.cluster.apply({
      ...policy!,
      spec: { ...(policy!["spec"] as object), ingres: [] },
    });
    expect(status).toBeGreaterThanOrEqual(400);
    expect(body["message"]).toContain("ingres");
  });

  it("takes every policy that is not refused in preview, by the published definitions", async () => {
    for (const crd of publishedCrds) await backend.cluster.define(crd.name, crd.version, readCrd(crd));
    for (const namespace of namespaceNames) await backend.cluster.restrictedNamespace(namespace);
    const made = fc
      .sample(policySet, { numRuns: 40, seed: 20 })
      .flatMap(({ networkPolicies, clusterNetworkPolicies }) => [
        ...(networkPolicies ?? []).map((policy) => ({ networkPolicies: [policy] })),
        ...(clusterNetworkPolicies ?? []).map((policy) => ({ clusterNetworkPolicies: [policy] })),
      ]);
    const objects = made.flatMap((policies) => {
      try {
        return policyObjects({ ...policies, cilium: true });
      } catch (error) {
        if (error instanceof ArgumentError) return [];
        throw error;
      }
    });
    const kinds = [...new Set(objects.map(({ kind }) => kind))].sort();
    expect(kinds).toEqual(["CiliumNetworkPolicy", "ClusterNetworkPolicy", "NetworkPolicy"]);
    for (const object of objects) {
      const { status, body, warnings } = await backend.cluster.apply({ ...object }, { dryRun: true });
      expect(status, JSON.stringify({ body, object })).toBeLessThan(300);
      expect(warnings).toBe("");
    }
    seen.policies = objects.length;
    seen.kinds = kinds.join(", ");

    // Control: the definition is what refuses.
    const cilium = objects.find(({ kind }) => kind === "CiliumNetworkPolicy")!;
    const wrong = { ...cilium, spec: { ...cilium.spec, ingress: [{ fromEntities: ["outside"] }] } };
    const { status, body } = await backend.cluster.apply(wrong, { dryRun: true });
    expect(status).toBe(422);
    expect(body["message"]).toContain("fromEntities");
    seen.unknown = body["message"] as string;
  });
});
