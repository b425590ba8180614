import * as pulumi from "@pulumi/pulumi";
import { describe, expect, it, vi } from "vitest";
import { NestedHost } from "../host/nested-host.js";
import { answer, connection, digest } from "../internal/testing/answers.js";
import { record, type Registration, settled, valueOf } from "../internal/testing/recorder.js";
import { ContainerGroup, type ContainerGroupArgs } from "./container-group.js";

const container = {
  name: "web",
  image: `registry.example/web@${digest}`,
  ports: [{ port: 80 }],
  resources: { requests: { cpu: 0.5, memoryInGB: 0.25 } },
};
const minimal: ContainerGroupArgs = { host: connection, containers: [container], ipAddress: { ports: [{ port: 80 }] } };

function deploymentOf(registrations: Registration[]): Registration {
  return registrations.find(({ type }) => type === "palisade:index:GroupDeployment")!;
}

describe("ContainerGroup", () => {
  it("deploys under its own name, beneath itself", async () => {
    const registrations = await record({ answer });
    const group = new ContainerGroup("shop", minimal);
    await settled();
    const deployment = deploymentOf(registrations);
    expect(deployment.urn).toBe(
      "urn:pulumi:test::palisade::palisade:index:ContainerGroup$palisade:index:GroupDeployment::shop-deployment",
    );
    expect(deployment.parent).toBe("palisade:index:ContainerGroup::shop");
    expect(deployment.inputs).toMatchObject({ name: "shop", restartPolicy: "Always", ports: [{ port: 80 }] });
    expect(deployment.options).toEqual({ version: "0.1.0" });
    expect(await valueOf(group.endpoints)).toEqual(connection.publishedPorts);
    expect(await valueOf(group.state)).toBe("Running");
  });

  it("goes with its host's machine", async () => {
    const registrations = await record({ answer });
    const host = new NestedHost("edge", { image: digest, keysDirectory: "/keys" });
    new ContainerGroup("shop", { ...minimal, host: host.connection });
    await settled();
    expect(deploymentOf(registrations).options["deletedWith"]).toBe(
      "palisade:index:NestedHost$palisade:index:VirtualMachine::edge-machine",
    );
  });

  it("keeps secrets secret, and only them", async () => {
    const registrations = await record({ answer });
    new ContainerGroup("shop", {
      ...minimal,
      containers: [
        {
          ...container,
          environmentVariables: [
            { name: "MODE", value: "production" },
            { name: "TOKEN", secureValue: "canary-1" },
            pulumi.output({ name: "OTHER", secureValue: pulumi.secret("canary-3") }),
          ],
        },
      ],
      imageRegistryCredentials: [{ server: "registry.example", username: "me", password: "canary-2" }],
    });
    await settled();
    const { inputs } = deploymentOf(registrations);
    expect(inputs["containers"]).toMatchObject([
      {
        environmentVariables: [
          { value: "production" },
          { secureValue: { "[secret]": "canary-1" } },
          { "[secret]": { secureValue: "canary-3" } },
        ],
      },
    ]);
    expect(inputs["imageRegistryCredentials"]).toMatchObject([
      { server: "registry.example", password: { "[secret]": "canary-2" } },
    ]);
  });

  it("takes an image by its parts, and a channel in place of a digest", async () => {
    const registrations = await record({ answer });
    const { image: _reference, ports: _taken, ...rest } = container;
    const repository = "registry.example/web";
    new ContainerGroup("shop", {
      ...minimal,
      containers: [
        container,
        { ...rest, name: "pinned", image: { repository: pulumi.output(repository), digest } },
        { ...rest, name: "follower", image: { repository, channel: pulumi.output("stable") } },
        pulumi.output({ ...rest, name: "late", image: { repository, channel: "stable" } }),
      ],
    });
    await settled();
    const containers = deploymentOf(registrations).inputs["containers"] as Record<string, unknown>[];
    expect(containers.map(({ image, imageChannel }) => ({ image, imageChannel }))).toEqual([
      { image: `${repository}@${digest}`, imageChannel: undefined },
      { image: `${repository}@${digest}`, imageChannel: undefined },
      { image: undefined, imageChannel: { repository, channel: "stable" } },
      { image: undefined, imageChannel: { repository, channel: "stable" } },
    ]);
  });

  it("previews on a host that is not there yet", async () => {
    const registrations = await record({ answer, preview: true });
    const host = new NestedHost("edge", { image: digest, keysDirectory: "/keys" });
    const group = new ContainerGroup("shop", { ...minimal, host: host.connection });
    await settled();
    expect(deploymentOf(registrations).inputs).toMatchObject({ host: "[unknown]", name: "shop" });
    expect(await valueOf(group.endpoints)).toBeUndefined();
  });

  it("takes a name of its own on the host", async () => {
    const registrations = await record({ answer });
    new ContainerGroup("shop", {
      ...minimal,
      containerGroupName: pulumi.output("other"),
      osType: pulumi.output("Linux"),
    });
    await settled();
    expect(deploymentOf(registrations).inputs["name"]).toBe("other");
  });

  it("warns of a port that its host does not publish", async () => {
    await record({ answer });
    const warn = vi.spyOn(pulumi.log, "warn").mockResolvedValue();
    const containers = [{ ...container, ports: [{ port: 80 }, { port: 81 }] }];
    new ContainerGroup("shop", { ...minimal, containers, ipAddress: { ports: [{ port: 80 }, { port: 81 }] } });
    await settled();
    expect(warn.mock.calls.map(([message]) => message)).toEqual([
      "ipAddress.ports[1].port = 81/TCP: the host does not publish it, so it is reached from the host only; " +
        "add it to the host's publishedPorts",
    ]);
    warn.mockRestore();
  });

  const withContainer = (change: object) =>
    ({ containers: [{ ...container, ...change }] }) as Partial<ContainerGroupArgs>;
  const withResources = (resources: object) => withContainer({ resources });

  it.each<[string, object]>([
    ["host: is required", { host: undefined }],
    ["host: must be the connection of a host, e.g. host.connection", { host: "edge" }],
    ["host: must be the connection of a host, e.g. host.connection", { host: { endpoint: "https://127.0.0.1" } }],
    ["containers: is required", { containers: undefined }],
    ["containers: must be a list of 1 to 60 containers", { containers: [] }],
    ["containers: must be a list of 1 to 60 containers", { containers: Array.from({ length: 61 }, () => container) }],
    ['containerGroupName = "My Group": must be a DNS label', { containerGroupName: "My Group" }],
    ['restartPolicy = "Sometimes": must be Always or OnFailure or Never', { restartPolicy: "Sometimes" }],
    ['osType = "Windows": must be Linux', { osType: "Windows" }],
    ["volumes: a host mounts no volumes", { volumes: [] }],
    ["sku: belongs to Azure", { sku: "Standard" }],
    ["tags: a host keeps no tags", { tags: { a: "b" } }],
    ["restartPolice: no such argument; there are host", { restartPolice: "Always" }],
    ['containers[0].name = "Web": must be a DNS label', withContainer({ name: "Web" })],
    ["containers[0].image: is required", withContainer({ image: undefined })],
    [
      'containers[0].image = "registry.example/web:latest": must name the image by digest',
      withContainer({ image: "registry.example/web:latest" }),
    ],
    [
      "containers[0].image: needs exactly one of digest and channel",
      withContainer({ image: { repository: "registry.example/web" } }),
    ],
    [
      "containers[0].image: needs exactly one of digest and channel",
      withContainer({ image: { repository: "registry.example/web", digest, channel: "stable" } }),
    ],
    [
      'containers[0].image.repository = "registry.example/web:1": must be server/repository',
      withContainer({ image: { repository: "registry.example/web:1", digest } }),
    ],
    [
      'containers[0].image.channel = "Stable": must be a DNS label',
      withContainer({ image: { repository: "registry.example/web", channel: "Stable" } }),
    ],
    [
      "containers[0].image.tag: no such argument",
      withContainer({ image: { repository: "registry.example/web", tag: "1" } }),
    ],
    ["containers[0].imageChannel: no such argument", withContainer({ imageChannel: {} })],
    ["containers[0].volumeMounts: a host mounts no volumes", withContainer({ volumeMounts: [] })],
    ["containers[0].livenessProbe: a host probes no containers", withContainer({ livenessProbe: {} })],
    ["containers[0].ports[0].port = 70000: must be", withContainer({ ports: [{ port: 70000 }] })],
    [
      'containers[0].ports[0].protocol = "HTTP": must be TCP or UDP',
      withContainer({ ports: [{ port: 80, protocol: "HTTP" }] }),
    ],
    [
      "containers[0].environmentVariables[0]: needs exactly one",
      withContainer({ environmentVariables: [{ name: "A" }] }),
    ],
    [
      "containers[0].environmentVariables[0]: needs exactly one",
      withContainer({ environmentVariables: [{ name: "A", value: "", secureValue: "canary" }] }),
    ],
    [
      'containers[0].environmentVariables[0].name = "A=B"',
      withContainer({ environmentVariables: [{ name: "A=B", value: "" }] }),
    ],
    [
      "containers[0].environmentVariables[0].secureValueReference: a host has no Key Vault",
      withContainer({ environmentVariables: [{ name: "A", value: "", secureValueReference: "x" }] }),
    ],
    ["containers[0].resources: is required", withContainer({ resources: undefined })],
    ["containers[0].resources.requests.memoryInGB: is required", withResources({ requests: { cpu: 1 } })],
    [
      "containers[0].resources.requests.cpu = 0: must be a number of at least 0.01",
      withResources({ requests: { cpu: 0, memoryInGB: 1 } }),
    ],
    [
      "containers[0].resources.requests.cpu = 0.005: must be a number of at least 0.01",
      withResources({ requests: { cpu: 0.005, memoryInGB: 1 } }),
    ],
    [
      "containers[0].resources.requests.gpu: a host has no GPUs",
      withResources({ requests: { cpu: 1, memoryInGB: 1, gpu: {} } }),
    ],
    [
      "containers[0].resources.limits.cpu = 0.5: must be at least the request, 1",
      withResources({ requests: { cpu: 1, memoryInGB: 1 }, limits: { cpu: 0.5 } }),
    ],
    [
      'containers[1].name = "web": is the name of containers[0] already',
      { containers: [container, { ...container, ports: [] }] },
    ],
    [
      'containers[1].ports[0].port = "80/TCP": is taken by containers[0].ports[0]',
      { containers: [container, { ...container, name: "b" }] },
    ],
    [
      'imageRegistryCredentials[0].server = "https://registry.example": must be host[:port]',
      { imageRegistryCredentials: [{ server: "https://registry.example" }] },
    ],
    [
      "imageRegistryCredentials[0].username: is required",
      { imageRegistryCredentials: [{ server: "a", password: "canary" }] },
    ],
    [
      "imageRegistryCredentials[0].identity: a host has no managed identities",
      { imageRegistryCredentials: [{ server: "a", identity: "x" }] },
    ],
    [
      'ipAddress.type = "Private": a host has no virtual network',
      { ipAddress: { type: "Private", ports: [{ port: 80 }] } },
    ],
    ["ipAddress.ports: is required", { ipAddress: {} }],
    ["ipAddress.dnsNameLabel: a host gives groups no domain names", { ipAddress: { ports: [], dnsNameLabel: "shop" } }],
    ['ipAddress.ports[0].port = "8080/TCP": no container listens on it', { ipAddress: { ports: [{ port: 8080 }] } }],
    ['ipAddress.ports[1].port = "80/TCP": is listed twice', { ipAddress: { ports: [{ port: 80 }, { port: 80 }] } }],
  ])("refuses %s", async (message, change) => {
    await record({ answer });
    const create = () => new ContainerGroup("shop", { ...minimal, ...change });
    expect(create).toThrow(message);
    expect(create).not.toThrow("canary");
  });
});
