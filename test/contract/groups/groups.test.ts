import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { digest } from "../../../components/internal/testing/answers.js";
import { report } from "../../acceptance/report.js";
import type { Untyped } from "./backend.js";
import { AzureBackend } from "./azure.js";
import { cases, groupContract } from "./contract.js";
import { HostBackend } from "./host.js";
import { KubernetesBackend, podOf } from "./kubernetes.js";

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
  const seen = { refusal: "", runtime: "" };
  beforeAll(() => backend.start());
  afterAll(async () => {
    await backend.stop();
    report({
      table: "clouds",
      id: "K1",
      observed:
        `${kubernetes.taken} groups by server-side apply, dry and real, with strict validation and in namespaces that enforce ` +
        "the Pod Security Standard restricted: Deployments, Pods, Services, NetworkPolicies, Secrets, no warning; a missing " +
        "RuntimeClass is refused, one that is there is taken",
      control: `the same pod without its security context: ${seen.refusal}`,
      pass: kubernetes.taken === cases.length && seen.refusal !== "" && seen.runtime !== "",
      seconds: (Date.now() - started) / 1000,
      evidence: `RuntimeClass: ${seen.runtime}`,
      missing: "CiliumNetworkPolicy, and Cyclonus' cases against a host's own policies",
    });
  });

  it("control: without its security context the pod is refused, and the Deployment warned of", async () => {
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
});
