/**
 * Row K1, what policies mean: those generated for Kubernetes let pass in a cluster what the same arguments let pass on
 * a host. A host's verdicts are read from the compiled form, a cluster's are those of Cyclonus' oracle on the generated
 * objects.
 */
import { describe, expect, it } from "vitest";
import { ContainerGroup, policyObjects } from "../../../components/kubernetes/index.js";
import { answer, objectsOf } from "../../../components/kubernetes/testing/objects.js";
import { digest } from "../../../components/internal/testing/answers.js";
import { record, settled } from "../../../components/internal/testing/recorder.js";
import {
  compileNetworkPolicies,
  networkPolicyFromKubernetes,
  type KubernetesNetworkPolicy,
  type PolicySet,
} from "../../../components/policy/index.js";
import { report } from "../../support/acceptance/report.js";
import {
  addressesOf,
  cyclonusCases,
  type CyclonusPod,
  type CyclonusQuestion,
  type CyclonusStep,
  cyclonusVerdicts,
  policySetOf,
} from "./cyclonus.js";
import { interpreter } from "./interpreter.js";

/** A step's cells as questions about other policies. */
function question({ pods, namespaces, cells }: CyclonusStep, policies: KubernetesNetworkPolicy[]): CyclonusQuestion {
  return {
    policies,
    peers: pods.map(({ namespace, labels, address }) => ({
      namespace,
      namespaceLabels: namespaces[namespace],
      labels,
      address,
    })),
    tuples: cells.map(({ from, to, port }) => {
      const { name, protocol, port: number } = pods[to]!.ports[port]!;
      return { from, to, protocol, port: number, name };
    }),
  };
}

const generated = ({ networkPolicies }: PolicySet) =>
  policyObjects({ networkPolicies }) as unknown as KubernetesNetworkPolicy[];

describe("policies generated for Kubernetes", () => {
  it.each([4, 6] as const)("IPv%i: each cell of Cyclonus' cases is as on a host", (family) => {
    const started = Date.now();
    const steps = cyclonusCases(family).flatMap(({ description, steps }) =>
      steps.map((step, index) => ({ step, set: policySetOf(step), where: `${description}, step ${index}` })),
    );
    const onHost = steps.map(({ step: { pods, cells }, set }) => {
      const { verdict } = interpreter(compileNetworkPolicies(set), addressesOf(pods));
      return cells.map(({ from, to, port }) => {
        const { protocol, port: number } = pods[to]!.ports[port]!;
        return verdict({ from: pods[from]!.address, to: pods[to]!.address, protocol, port: number });
      });
    });
    const differing = (policiesOf: (set: PolicySet) => KubernetesNetworkPolicy[]): string[] =>
      cyclonusVerdicts(steps.map(({ step, set }) => question(step, policiesOf(set)))).flatMap((inCluster, at) =>
        inCluster.flatMap((cell, place) => {
          const host = onHost[at]![place]!;
          const same = cell.ingress === host.ingress && cell.egress === host.egress;
          return same ? [] : [`${steps[at]!.where}, cell ${place}: ${JSON.stringify({ cluster: cell, host })}`];
        }),
      );
    const wrong = differing(generated);
    const readBack = steps.filter(({ set }) => {
      const again = { ...set, networkPolicies: generated(set).map(networkPolicyFromKubernetes) };
      return compileNetworkPolicies(again).hash !== compileNetworkPolicies(set).hash;
    });
    const withoutOne = differing((set) => generated(set).slice(1));
    const cells = onHost.flat().length;
    const pass = wrong.length === 0 && readBack.length === 0 && withoutOne.length > 0;
    report({
      table: "clouds",
      id: "K1",
      part: `policies IPv${family}`,
      observed:
        `IPv${family}: ${steps.length} sets of policies generated for Kubernetes, ${wrong.length} of ${cells} cells of Cyclonus' ` +
        `oracle differ from the host's; read back, ${readBack.length} compile to something else`,
      control: `IPv${family}: one policy left out of each set: ${withoutOne.length} cells differ`,
      pass,
      seconds: (Date.now() - started) / 1000,
      evidence: wrong.slice(0, 20).join("\n"),
    });
    expect(wrong).toEqual([]);
    expect(readBack.map(({ where }) => where)).toEqual([]);
    expect(withoutOne.length).toBeGreaterThan(0);
  });

  it("the policy of a group lets in the ports of ipAddress, from everywhere, and nothing else", async () => {
    const registrations = await record({ answer });
    new ContainerGroup("web", {
      namespace: "shop",
      containers: [
        {
          name: "web",
          image: `registry.example/web@${digest}`,
          ports: [{ port: 80 }, { port: 81 }, { port: 53, protocol: "UDP" }],
          resources: { requests: { cpu: 1, memoryInGB: 1 } },
        },
      ],
      ipAddress: { ports: [{ port: 80 }, { port: 53, protocol: "UDP" }] },
    });
    await settled();
    const objects = objectsOf(registrations);
    const policy = objects.find(({ kind }) => kind === "NetworkPolicy") as unknown as KubernetesNetworkPolicy;
    const { labels = {} } = objects.find(({ kind }) => kind === "Deployment")!.metadata;
    const pod = (namespace: string, name: string, address: string, own: Record<string, string>): CyclonusPod => ({
      ...{ namespace, name, address, labels: own },
      ports: (["TCP", "UDP"] as const).flatMap((protocol) =>
        [80, 81, 53].map((port) => ({ name: "", port, protocol })),
      ),
    });
    const pods = [pod("shop", "web", "10.0.0.4", labels), pod("other", "client", "10.0.1.5", {})];
    const cells = [[1, 0] as const, [0, 1] as const].flatMap(([from, to]) =>
      pods[to]!.ports.map((_, port) => ({ from, to, port, ingress: false, egress: false })),
    );
    const step: CyclonusStep = { policies: [policy], namespaces: { shop: {}, other: {} }, pods, cells };
    const [verdicts] = cyclonusVerdicts([question(step, [policy])]);
    const passing = cells.flatMap(({ from, to, port }, at) => {
      const { protocol, port: number } = pods[to]!.ports[port]!;
      const { ingress, egress } = verdicts![at]!;
      return ingress && egress ? [`${pods[from]!.name} to ${pods[to]!.name} ${number}/${protocol}`] : [];
    });
    const everything = pods[1]!.ports.map(({ port, protocol }) => `web to client ${port}/${protocol}`);
    expect(passing.sort()).toEqual(["client to web 80/TCP", "client to web 53/UDP", ...everything].sort());
  });
});
