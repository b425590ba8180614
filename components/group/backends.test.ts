/**
 * One table of wrong values for all backends of container groups: what one of them refuses, its siblings have been
 * asked about, too.
 */
import * as pulumi from "@pulumi/pulumi";
import { describe, expect, it } from "vitest";
import { ContainerGroup as OnAzure } from "../azure/container-group.js";
import { ArgumentError } from "../internal/arguments.js";
import { answer as hostAnswer, connection, digest } from "../internal/testing/answers.js";
import { type Answer, record, settled, type Registration } from "../internal/testing/recorder.js";
import { ContainerGroup as OnKubernetes } from "../kubernetes/container-group.js";
import { ContainerGroup as OnHost } from "./container-group.js";
import { type Backend, valueRules } from "./rules.js";

const answer: Answer = (registration) =>
  registration.type.startsWith("palisade:")
    ? hostAnswer(registration)
    : {
        metadata: { name: registration.name },
        status: { availableReplicas: 1 },
        instanceView: { state: "Running", events: [] },
        ipAddress: { ip: "192.0.2.7", ports: [], type: "Public" },
      };

const container = {
  name: "web",
  image: `registry.example/web@${digest}`,
  ports: [{ port: 80 }],
  resources: { requests: { cpu: 0.5, memoryInGB: 0.25 } },
};
const shared = { containers: [container], ipAddress: { ports: [{ port: 80 }] } };

const groups: Record<
  Backend,
  (name: string, change: object, opts?: pulumi.ComponentResourceOptions) => pulumi.Resource
> = {
  host: (name, change, opts) => new OnHost(name, { host: connection, ...shared, ...change }, opts),
  kubernetes: (name, change, opts) => new OnKubernetes(name, { ...shared, ...change }, opts),
  azure: (name, change, opts) => new OnAzure(name, { resourceGroupName: "shops", ...shared, ...change } as never, opts),
};
const backends = Object.keys(groups) as Backend[];

/** The problems of a group, `path: reason`. */
async function problems(backend: Backend, change: object, name = "shop"): Promise<string[]> {
  await record({ answer });
  try {
    groups[backend](name, change);
    await settled();
    return [];
  } catch (error) {
    if (!(error instanceof ArgumentError)) throw error;
    return error.problems.map(({ path, reason }) => `${path}: ${reason}`);
  }
}

const withContainer = (change: object) => ({ containers: [{ ...container, ...change }] });
const withVariables = (...environmentVariables: object[]) => withContainer({ environmentVariables });
const withVolume = (volume: object) => ({ volumes: [{ name: "letter", ...volume }] });
const letter = { "note.txt": "Y2FuYXJ5" };
const login = { server: "registry.example", username: "shop", password: "canary" };
const everywhere = ["host", "kubernetes", "azure"] as const;
const clouds = ["kubernetes", "azure"] as const;

interface Case {
  what: string;
  change: object;
  name?: string;
  /** Where it is refused, by the path. */
  refused: readonly Backend[];
  path: string;
}

const cases: Case[] = [
  {
    what: "a component's name that no Service can have",
    name: "1web",
    change: {},
    refused: ["kubernetes"],
    path: "name",
  },
  {
    what: "no such name, as the group has another one",
    name: "1web",
    change: { containerGroupName: "web" },
    refused: [],
    path: "name",
  },
  {
    what: "a group's name that no Service can have",
    change: { containerGroupName: "1web" },
    refused: ["kubernetes"],
    path: "containerGroupName",
  },
  { what: "two hyphens in a row", name: "a--b", change: {}, refused: ["azure"], path: "name" },
  {
    what: "an unknown restart policy",
    change: { restartPolicy: "Sometimes" },
    refused: everywhere,
    path: "restartPolicy",
  },
  { what: "an unknown operating system", change: { osType: "Plan9" }, refused: everywhere, path: "osType" },
  {
    what: "one variable twice",
    change: withVariables({ name: "A", value: "1" }, { name: "A", secureValue: "canary" }),
    refused: everywhere,
    path: "containers[0].environmentVariables[1].name",
  },
  {
    what: "a zero byte in a value",
    change: withVariables({ name: "A", value: "a\0b" }),
    refused: everywhere,
    path: "containers[0].environmentVariables[0].value",
  },
  {
    what: "a zero byte in a secure value",
    change: withVariables({ name: "A", secureValue: "canary\0" }),
    refused: everywhere,
    path: "containers[0].environmentVariables[0].secureValue",
  },
  {
    what: "a zero byte in a command",
    change: withContainer({ command: ["/web", "a\0b"] }),
    refused: everywhere,
    path: "containers[0].command[1]",
  },
  {
    what: "a variable with '='",
    change: withVariables({ name: "A=B", value: "" }),
    refused: everywhere,
    path: "containers[0].environmentVariables[0].name",
  },
  {
    what: "a variable with a blank",
    change: withVariables({ name: "A B", value: "" }),
    refused: clouds,
    path: "containers[0].environmentVariables[0].name",
  },
  {
    what: "a variable that looks like a folder above",
    change: withVariables({ name: "..A", value: "" }),
    refused: clouds,
    path: "containers[0].environmentVariables[0].name",
  },
  {
    what: "a secure variable whose key is too long",
    change: withVariables({ name: "A".repeat(240), secureValue: "canary" }),
    refused: clouds,
    path: "containers[0].environmentVariables[0].name",
  },
  { what: "no ports", change: { ipAddress: { ports: [] } }, refused: everywhere, path: "ipAddress.ports" },
  {
    what: "ports that are no list",
    change: { ipAddress: { ports: { port: 80 } } },
    refused: everywhere,
    path: "ipAddress.ports",
  },
  {
    what: "a port that is null",
    change: { ipAddress: { ports: [null] } },
    refused: everywhere,
    path: "ipAddress.ports[0]",
  },
  { what: "a container that is null", change: { containers: [null] }, refused: everywhere, path: "containers[0]" },
  { what: "containers that are no list", change: { containers: container }, refused: everywhere, path: "containers" },
  {
    what: "one registry twice",
    change: { imageRegistryCredentials: [login, login] },
    refused: everywhere,
    path: "imageRegistryCredentials[1].server",
  },
  {
    what: "a user name alone",
    change: { imageRegistryCredentials: [{ ...login, password: null }] },
    refused: everywhere,
    path: "imageRegistryCredentials[0].password",
  },
  {
    what: "a credential without anything",
    change: { imageRegistryCredentials: [{ server: "registry.example" }] },
    refused: clouds,
    path: "imageRegistryCredentials[0]",
  },
  {
    what: "more cores than a host may have",
    change: withContainer({ resources: { requests: { cpu: 65, memoryInGB: 1 } } }),
    refused: ["host", "azure"],
    path: "",
  },
  { what: "an empty secret volume", change: withVolume({ secret: {} }), refused: clouds, path: "volumes[0].secret" },
  {
    what: "a file that is no key of a Secret",
    change: withVolume({ secret: { "a b": "" } }),
    refused: ["kubernetes"],
    path: 'volumes[0].secret["a b"]',
  },
  {
    what: "a file that is a path",
    change: withVolume({ secret: { "a/b": "" } }),
    refused: clouds,
    path: 'volumes[0].secret["a/b"]',
  },
  {
    what: "a file whose key is too long",
    change: withVolume({ secret: { ["a".repeat(250)]: "" } }),
    refused: ["kubernetes"],
    path: `volumes[0].secret["${"a".repeat(80)}"]`,
  },
  {
    what: "a file that is not in base64",
    change: withVolume({ secret: { "note.txt": "canary!" } }),
    refused: clouds,
    path: 'volumes[0].secret["note.txt"]',
  },
  {
    what: "two volumes in one place",
    change: {
      ...withVolume({ secret: letter }),
      ...withContainer({
        volumeMounts: [
          { name: "letter", mountPath: "/a" },
          { name: "letter", mountPath: "/a" },
        ],
      }),
    },
    refused: clouds,
    path: "containers[0].volumeMounts[1].mountPath",
  },
  {
    what: "a probe that runs nothing",
    change: withContainer({ livenessProbe: { exec: { command: [] } } }),
    refused: clouds,
    path: "containers[0].livenessProbe.exec.command",
  },
  {
    what: "a header without a name",
    change: withContainer({ readinessProbe: { httpGet: { port: 80, httpHeaders: [{ name: "a b", value: "" }] } } }),
    refused: clouds,
    path: "containers[0].readinessProbe.httpGet.httpHeaders[0].name",
  },
  {
    what: "a user that is no number",
    change: withContainer({ securityContext: { runAsUser: -1 } }),
    refused: clouds,
    path: "containers[0].securityContext.runAsUser",
  },
  {
    what: "a name that Pulumi would lose",
    change: withContainer(JSON.parse('{"__proto__": 1}') as object),
    refused: everywhere,
    path: "containers[0].__proto__",
  },
  {
    what: "names that every object has",
    change: { constructor: 1, toString: 2 },
    refused: everywhere,
    path: "constructor",
  },
];

describe.each(backends)("on %s", (backend) => {
  it.each(cases)("$what", async ({ change, name, refused, path }) => {
    const found = await problems(backend, change, name);
    const matches = found.filter((problem) => problem.startsWith(`${path}: `) || path === "");
    expect(found.join("\n")).not.toContain("canary");
    if (refused.includes(backend)) expect(matches.length, found.join("\n")).toBeGreaterThan(0);
    else expect(matches).toEqual([]);
  });
});

it("has a rule of every backend for every value", () => {
  for (const [value, row] of Object.entries(valueRules)) {
    expect(Object.keys(row).sort(), value).toEqual([...backends].sort());
  }
});

/** Whether the group's own resource was registered, and with what: none is where an output turns out to be wrong. */
async function resources(backend: Backend, change: object): Promise<Registration[]> {
  const registrations = await record({ answer });
  groups[backend]("shop", change);
  await settled().catch(() => undefined);
  return registrations.filter(({ type }) => !type.startsWith("palisade:") || type.endsWith("GroupDeployment"));
}

describe.each(backends)("on %s null is as not given", (backend) => {
  const all = {
    containerGroupName: null,
    initContainers: null,
    volumes: null,
    imageRegistryCredentials: null,
    osType: null,
    restartPolicy: null,
    host: backend === "host" ? connection : null,
    subnetIds: null,
  };
  const parts = {
    containers: [
      {
        ...container,
        command: null,
        environmentVariables: [{ name: "A", value: "x", secureValue: null }],
        ports: [{ port: 80, protocol: null }],
        resources: { requests: container.resources.requests, limits: { cpu: null, memoryInGB: null } },
        livenessProbe: null,
        securityContext: null,
        volumeMounts: null,
      },
    ],
    ipAddress: { type: null, ports: [{ port: 80, protocol: null }] },
  };

  it("where it is known", async () => {
    expect(await problems(backend, { ...all, ...parts })).toEqual([]);
    const text = JSON.stringify(await resources(backend, { ...all, ...parts }));
    expect(text).not.toContain("null");
    expect(text).not.toContain("[secret]");
  });

  it("where it becomes known later", async () => {
    const late = (value: unknown): unknown =>
      value === null
        ? pulumi.output(null)
        : Array.isArray(value)
          ? value.map(late)
          : typeof value === "object"
            ? Object.fromEntries(Object.entries(value).map(([key, content]) => [key, late(content)]))
            : value;
    const names = [
      "containerGroupName",
      "imageRegistryCredentials",
      "osType",
      ...(backend === "host" ? [] : ["volumes"]),
    ];
    const rest = Object.fromEntries(names.map((name) => [name, null]));
    const { livenessProbe, securityContext, volumeMounts, ...shared } = parts.containers[0]!;
    const onClouds = backend === "host" ? {} : { livenessProbe, securityContext, volumeMounts };
    const containers = [{ ...shared, ...onClouds }];
    const found = await resources(backend, late({ ...rest, ...parts, containers }) as object);
    const { inputs } = found.find(({ type }) => /GroupDeployment|:ContainerGroup|:Deployment/.test(type))!;
    const text = JSON.stringify(inputs);
    expect(text).toContain(`registry.example/web@${digest}`);
    expect(text).toContain('"x"');
    expect(text).not.toContain("undefined");
    if (backend === "kubernetes") {
      expect(text).toContain('"limits":{"cpu":"500m","memory":"268435456"}');
      expect(text).toContain('"allowPrivilegeEscalation":false');
    }
  });
});

it.each(backends)("hands custom time-outs down to what takes the time on %s", async (backend) => {
  const registrations = await record({ answer });
  groups[backend]("shop", {}, { customTimeouts: { create: "30m", delete: "2m" } });
  await settled();
  const children = registrations.filter(({ parent }) => parent !== undefined);
  expect(children.length).toBeGreaterThan(0);
  for (const { options } of children) {
    expect(options["customTimeouts"]).toEqual({ create: "30m", update: "", delete: "2m" });
  }
});
