import * as pulumi from "@pulumi/pulumi";
import { describe, expect, it } from "vitest";
import { digest } from "../internal/testing/answers.js";
import { record, type Registration, settled, valueOf } from "../internal/testing/recorder.js";
import { ContainerGroup, type ContainerGroupArgs } from "./container-group.js";
import { answer as secretNames, objectsOf, type KubernetesObject } from "./testing/objects.js";

const container = {
  name: "web",
  image: `registry.example/web@${digest}`,
  ports: [{ port: 80 }],
  resources: { requests: { cpu: 0.5, memoryInGB: 0.25 } },
};
const minimal = {
  namespace: "shops",
  containers: [container],
  ipAddress: { ports: [{ port: 80 }] },
} satisfies ContainerGroupArgs;

async function registered(args: ContainerGroupArgs, preview = false): Promise<Registration[]> {
  const registrations = await record({ answer: secretNames, preview });
  new ContainerGroup("shop", args);
  await settled();
  return registrations;
}

async function objects(args: ContainerGroupArgs): Promise<KubernetesObject[]> {
  return objectsOf(await registered(args));
}

const kindOf = (list: KubernetesObject[], kind: string) =>
  list.find((object) => object.kind === kind) as ReturnType<typeof JSON.parse>;

describe("ContainerGroup on Kubernetes", () => {
  it("is a Deployment, a Service and a NetworkPolicy beneath the component", async () => {
    const registrations = await registered(minimal);
    expect(registrations.map(({ urn }) => urn.replace("urn:pulumi:test::palisade::", "")).sort()).toEqual([
      "palisade:kubernetes:ContainerGroup$kubernetes:apps/v1:Deployment::shop-deployment",
      "palisade:kubernetes:ContainerGroup$kubernetes:core/v1:Service::shop-service",
      "palisade:kubernetes:ContainerGroup$kubernetes:networking.k8s.io/v1:NetworkPolicy::shop-policy",
      "palisade:kubernetes:ContainerGroup::shop",
    ]);
  });

  it("lets in what ipAddress names, and nothing without it", async () => {
    const open = await objects(minimal);
    expect(kindOf(open, "NetworkPolicy").spec).toEqual({
      podSelector: { matchLabels: { "app.kubernetes.io/name": "shop" } },
      policyTypes: ["Ingress"],
      ingress: [{ ports: [{ port: 80, protocol: "TCP" }] }],
    });
    expect(kindOf(open, "Service").spec).toMatchObject({
      type: "LoadBalancer",
      ports: [{ name: "tcp-80", port: 80, protocol: "TCP", targetPort: 80 }],
    });
    const closed = await objects({ ...minimal, ipAddress: undefined });
    expect(kindOf(closed, "NetworkPolicy").spec).toMatchObject({ policyTypes: ["Ingress"], ingress: [] });
    expect(kindOf(closed, "Service")).toBeUndefined();
  });

  describe("opens nothing where nothing is given", () => {
    const unknown = () => pulumi.output(pulumi.unknown as unknown as string);
    it.each<[string, unknown]>([
      ["null", null],
      ["undefined", undefined],
      ["an output of null", pulumi.output(null)],
      ["an output of undefined", pulumi.output(undefined)],
      ["a promise of nothing", Promise.resolve(undefined)],
      ["a secret of nothing", pulumi.secret(undefined)],
    ])("ipAddress = %s", async (_what, ipAddress) => {
      const list = await objects({ ...minimal, ipAddress } as ContainerGroupArgs);
      expect(kindOf(list, "NetworkPolicy").spec.ingress).toEqual([]);
      expect(kindOf(list, "Service")).toBeUndefined();
    });

    it("and opens what an output names", async () => {
      const list = await objects({ ...minimal, ipAddress: pulumi.output({ ports: [{ port: 80 }] }) });
      expect(kindOf(list, "NetworkPolicy").spec.ingress).toEqual([{ ports: [{ port: 80, protocol: "TCP" }] }]);
      expect(kindOf(list, "Service").spec.ports).toMatchObject([{ port: 80 }]);
    });

    it("and keeps the Service in a preview that does not know the address", async () => {
      const list = objectsOf(await registered({ ...minimal, ipAddress: unknown() as never }, true));
      expect(kindOf(list, "NetworkPolicy").spec.ingress).toBe("[unknown]");
      expect(kindOf(list, "Service").spec.ports).toBe("[unknown]");
    });

    it("mounts no Secret for a volume whose files turn out not to be given", async () => {
      const late = { name: "letter", emptyDir: {}, secret: pulumi.output(undefined) };
      const list = await objects({ ...minimal, volumes: [late] });
      expect(kindOf(list, "Deployment").spec.template.spec.volumes).toEqual([{ name: "letter", emptyDir: {} }]);
    });
  });

  it("is reached inside the cluster when its address is private", async () => {
    const list = await objects({ ...minimal, ipAddress: { type: "Private", ports: [{ port: 80 }] } });
    expect(kindOf(list, "Service").spec.type).toBe("ClusterIP");
  });

  it("is a bare pod when it is not to run always, as a Deployment's pods do", async () => {
    const list = await objects({ ...minimal, restartPolicy: "Never" });
    expect(kindOf(list, "Deployment")).toBeUndefined();
    expect(kindOf(list, "Pod").spec.restartPolicy).toBe("Never");
  });

  it("has a request and a limit in Kubernetes' units; the limit is the request where there is none", async () => {
    const resources = { requests: { cpu: 0.29, memoryInGB: 0.25 }, limits: { cpu: 1 } };
    const list = await objects({ ...minimal, containers: [{ ...container, resources }] });
    expect(kindOf(list, "Deployment").spec.template.spec.containers[0].resources).toEqual({
      requests: { cpu: "290m", memory: "268435456" },
      limits: { cpu: "1000m", memory: "268435456" },
    });
  });

  it("keeps secrets in Secrets, and nowhere else", async () => {
    const registrations = await registered({
      ...minimal,
      containers: [
        {
          ...container,
          environmentVariables: [
            { name: "MODE", value: "production" },
            { name: "TOKEN", secureValue: "canary-1" },
            pulumi.output({ name: "OTHER", secureValue: pulumi.secret("canary-2") }),
          ],
          volumeMounts: [{ name: "letter", mountPath: "/letter" }],
        },
      ],
      volumes: [{ name: "letter", secret: { "note.txt": "Y2FuYXJ5LTM=" } }],
      imageRegistryCredentials: [{ server: "registry.example", username: "shop", password: "canary-4" }],
    });
    const secrets = registrations.filter(({ type }) => type === "kubernetes:core/v1:Secret");
    const rest = JSON.stringify(registrations.filter(({ type }) => type !== "kubernetes:core/v1:Secret"));
    const auth = Buffer.from("shop:canary-4").toString("base64");
    for (const value of ["canary-1", "canary-2", "canary-3"].map((text) => Buffer.from(text).toString("base64"))) {
      expect(rest).not.toContain(value);
    }
    expect(rest).not.toContain("canary");
    expect(rest).not.toContain(auth);
    expect(secrets.map(({ inputs }) => inputs["data"] ?? inputs["stringData"])).toEqual([
      {
        "[secret]": {
          "environment.web.TOKEN": Buffer.from("canary-1").toString("base64"),
          "environment.web.OTHER": Buffer.from("canary-2").toString("base64"),
          "volume.letter.note.txt": "Y2FuYXJ5LTM=",
        },
      },
      { "[secret]": { ".dockerconfigjson": JSON.stringify({ auths: { "registry.example": { auth } } }) } },
    ]);
    const { spec } = kindOf(objectsOf(registrations), "Deployment").spec.template;
    expect(spec.imagePullSecrets).toEqual([{ name: "shop-registries-0a1b2c3d" }]);
    expect(spec.containers[0].env[1].valueFrom.secretKeyRef).toEqual({
      key: "environment.web.TOKEN",
      name: "shop-values-0a1b2c3d",
    });
    expect(spec.volumes[0].secret.items).toEqual([{ key: "volume.letter.note.txt", path: "note.txt" }]);
  });

  it("previews what is known beside what is not", async () => {
    const image = pulumi.output(pulumi.unknown as unknown as string);
    const list = objectsOf(await registered({ ...minimal, containers: [{ ...container, image }] }, true));
    expect(kindOf(list, "Deployment").spec.template.spec.containers).toMatchObject([
      { name: "web", image: "[unknown]", resources: { requests: { cpu: "500m" } } },
    ]);
  });

  it("reports its address and its state", async () => {
    await record({
      answer: (registration) =>
        ({
          "kubernetes:apps/v1:Deployment": { status: { availableReplicas: 1 } },
          "kubernetes:core/v1:Service": { status: { loadBalancer: { ingress: [{ ip: "192.0.2.7" }] } } },
        })[registration.type] ?? secretNames(registration),
    });
    const group = new ContainerGroup("shop", minimal);
    await settled();
    expect(await valueOf(group.endpoints)).toEqual([{ port: 80, protocol: "TCP", address: "192.0.2.7:80" }]);
    expect(await valueOf(group.state)).toBe("Running");
  });

  it("has brackets around an IPv6 address", async () => {
    await record({
      answer: (registration) =>
        registration.type === "kubernetes:core/v1:Service"
          ? { status: { loadBalancer: { ingress: [{ ip: "2001:db8::7" }] } } }
          : { status: {}, ...secretNames(registration) },
    });
    const group = new ContainerGroup("shop", minimal);
    await settled();
    expect(await valueOf(group.endpoints)).toMatchObject([{ address: "[2001:db8::7]:80" }]);
  });

  const withContainer = (change: object) => ({ containers: [{ ...container, ...change }] });
  const withSecurity = (securityContext: object) => withContainer({ securityContext });

  it.each<[string, object]>([
    [
      "containers[0].image.channel: a cluster pulls by itself and follows no channel",
      withContainer({ image: { repository: "registry.example/web", channel: "stable" } }),
    ],
    ["sku: belongs to Azure", { sku: "Standard" }],
    ["host: belongs to groups on hosts", { host: {} }],
    ['osType = "Windows": must be Linux', { osType: "Windows" }],
    ['containerGroupName = "1shop": must begin with a letter', { containerGroupName: "1shop" }],
    ["restartPolicy: must be known before", { restartPolicy: pulumi.output("Always") }],
    ["volumes[0].gitRepo: Kubernetes has switched gitRepo volumes off", { volumes: [{ name: "a", gitRepo: {} }] }],
    ["volumes[0].azureFile: needs a storage driver", { volumes: [{ name: "a", azureFile: {} }] }],
    ["securityContext.privileged = true: the Pod Security Standard restricted", withSecurity({ privileged: true })],
    ["securityContext.allowPrivilegeEscalation = true", withSecurity({ allowPrivilegeEscalation: true })],
    ["securityContext.runAsUser = 0", withSecurity({ runAsUser: 0 })],
    ['securityContext.capabilities.add[0] = "SYS_ADMIN"', withSecurity({ capabilities: { add: ["SYS_ADMIN"] } })],
    ["securityContext.seccompProfile: every container runs", withSecurity({ seccompProfile: "e30=" })],
    [
      "livenessProbe.successThreshold = 2: must be 1",
      withContainer({ livenessProbe: { exec: { command: ["/a"] }, successThreshold: 2 } }),
    ],
    [
      'environmentVariables[0].name = "1A": Kubernetes takes',
      withContainer({ environmentVariables: [{ name: "1A", value: "" }] }),
    ],
    [
      "imageRegistryCredentials[0].ca: the cluster's nodes decide",
      { imageRegistryCredentials: [{ server: "registry.example", username: "a", password: "canary", ca: "x" }] },
    ],
  ])("refuses %s", async (message, change) => {
    await record({ answer: secretNames });
    const create = () => new ContainerGroup("shop", { ...minimal, ...change });
    expect(create).toThrow(message);
    expect(create).not.toThrow("canary");
  });
});
