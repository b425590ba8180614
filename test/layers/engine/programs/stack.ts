/**
 * One of each resource, wired as the components wire them, driven by configuration so that a test can change one thing
 * at a time: `keys` (folder), `protect`, `memory`, `imageTag`, `imageDigest`, `diskSize`, `command`, `image`,
 * `channel`, `secret`, `password`, `force`, `updateTimeout`, `policyPort`, `withoutGroup`.
 */
import path from "node:path";
import * as pulumi from "@pulumi/pulumi";
import { NetworkPolicy } from "../../../../components/network/network-policy.js";
import * as palisade from "../../../../sdk/index.js";

const config = new pulumi.Config();
const keys = config.require("keys");
const pair = (name: string) => ({
  certificateFile: path.join(keys, "hosts", `${name}.crt`),
  keyFile: path.join(keys, "hosts", `${name}.key`),
});

const secret = config.getSecret("secret");
const password = config.getSecret("password");
/** Empty: none. */
const channel = config.get("channel") || undefined;
const updateTimeout = config.get("updateTimeout") ?? "2m";

const registry = new palisade.Registry("registry");
const image = new palisade.DebianImage("image", {
  registry: {
    server: registry.server,
    username: registry.username,
    password: password ?? registry.password,
    ca: registry.ca,
  },
  repository: "web/nginx",
  tag: config.get("imageTag") ?? "1",
  packages: ["nginx-light"],
  entrypoint: ["/usr/sbin/nginx"],
});
const hostImage = new palisade.HostImage("host-image", { build: { keysDirectory: keys } });
const disk = new palisade.StateDisk(
  "disk",
  { sizeGiB: config.getNumber("diskSize") ?? 8 },
  { protect: config.getBoolean("protect") ?? false, dependsOn: [image] },
);
const machine = new palisade.VirtualMachine(
  "machine",
  {
    imageDigest: config.get("imageDigest") ?? hostImage.imageDigest,
    stateDiskId: disk.id,
    memoryMiB: config.getNumber("memory") ?? 2048,
    publishedPorts: [{ port: 80 }],
    certificateAuthority: pair("ca"),
    clientIdentity: pair("client"),
    forceDestroy: config.getBoolean("force") ?? false,
  },
  // The image first, so that tests know in which order checkpoints are reached.
  { customTimeouts: { create: "2m", update: updateTimeout }, dependsOn: [image, registry] },
);
const groupName = "web";
const makeGroup = () =>
  new palisade.GroupDeployment(
    "group",
    {
      host: machine.connection,
      name: groupName,
      containers: [
        {
          name: "nginx",
          ...(channel === undefined
            ? { image: config.get("image") ?? image.reference }
            : { imageChannel: { repository: "registry.example/web/nginx", channel } }),
          command: config.getObject<string[]>("command"),
          ports: [{ port: 80 }],
          environmentVariables: secret ? [{ name: "TOKEN", secureValue: secret }] : [],
          resources: { requests: { cpu: 0.5, memoryInGB: 0.25 } },
        },
      ],
      ports: [{ port: 80 }],
      imageRegistryCredentials: [
        {
          server: registry.server,
          username: registry.username,
          password: password ?? registry.password,
          ca: registry.ca,
        },
      ],
    },
    { deletedWith: machine, customTimeouts: { create: "20s", update: "20s" } },
  );
const group = config.getBoolean("withoutGroup") ? undefined : makeGroup();
const policyPort = config.getNumber("policyPort");
if (policyPort !== undefined) {
  new NetworkPolicy(
    "network",
    {
      host: machine.connection,
      groups: [{ name: groupName, labels: { app: "web" } }],
      networkPolicies: [
        { name: "web", groupSelector: { matchLabels: { app: "web" } }, ingress: [{ ports: [{ port: policyPort }] }] },
      ],
    },
    { deletedWith: machine },
  );
}

export const hostId = machine.hostId;
export const endpoints = group?.endpoints;
export const powerState = machine.powerState;
