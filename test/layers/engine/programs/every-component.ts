/**
 * Every component and resource of the library once, with arguments that hang on nothing but the folder `keys`. Without
 * HostImage: an image that is built here changes with the host, as it should.
 */
import path from "node:path";
import * as pulumi from "@pulumi/pulumi";
import * as azure from "../../../../components/azure/index.js";
import {
  ContainerGroup,
  DebianImage,
  ImagePolicy,
  NestedHost,
  NetworkPolicy,
  PatchedImage,
  Registry,
  SealedImage,
} from "../../../../components/index.js";
import * as kubernetes from "../../../../components/kubernetes/index.js";

const keysDirectory = new pulumi.Config().require("keys");
const pair = (name: string) => ({
  certificateFile: path.join(keysDirectory, "hosts", `${name}.crt`),
  keyFile: path.join(keysDirectory, "hosts", `${name}.key`),
});

const registry = new Registry("registry");
const access = {
  server: registry.server,
  username: registry.username,
  password: registry.password,
  ca: registry.ca,
};
const debian = new DebianImage("web", { registry: access, repository: "web", packages: ["nginx"] });
const sealed = new SealedImage("web", {
  registry: access,
  repository: "web",
  digest: debian.digest,
  layerSigner: pair("ca"),
  sealSigner: pair("client"),
  imageSigner: pair("client"),
});
const patched = new PatchedImage("web", {
  registry: access,
  repository: "web",
  digest: debian.digest,
  channel: "stable",
  layerSigner: pair("ca"),
  sealSigner: pair("client"),
  imageSigner: pair("client"),
});
const host = new NestedHost("edge", {
  image: `sha256:${"0".repeat(64)}`,
  keysDirectory,
  publishedPorts: [{ port: 80 }],
});
new ImagePolicy("policy", { host: host.connection, name: "policy", repositories: ["registry.example/shop/*"] });
new NetworkPolicy("network", {
  host: host.connection,
  groups: [{ name: "web", labels: { app: "web" } }],
  networkPolicies: [
    { name: "web", groupSelector: { matchLabels: { app: "web" } }, ingress: [{ ports: [{ port: 80 }] }] },
  ],
});

const group = (reference: pulumi.Input<string>) => ({
  containers: [
    {
      name: "web",
      image: reference,
      command: ["/web"],
      ports: [{ port: 80 }],
      environmentVariables: [
        { name: "MODE", value: "production" },
        { name: "TOKEN", secureValue: "canary-token" },
      ],
      resources: { requests: { cpu: 1, memoryInGB: 0.5 }, limits: { cpu: 2 } },
    },
  ],
  ipAddress: { type: "Public", ports: [{ port: 80 }] },
});
new ContainerGroup("web", { ...group(sealed.reference), host: host.connection, imageRegistryCredentials: [access] });
new ContainerGroup("follower", {
  containers: [
    {
      name: "web",
      image: { repository: pulumi.interpolate`${registry.server}/web`, channel: patched.channel },
      resources: { requests: { cpu: 1, memoryInGB: 0.5 } },
    },
  ],
  host: host.connection,
  imageRegistryCredentials: [access],
});

const volumes = {
  volumes: [
    { name: "scratch", emptyDir: {} },
    { name: "letter", secret: { "note.txt": "Y2FuYXJ5LWxldHRlcg==" } },
  ],
  imageRegistryCredentials: [{ server: "registry.example", username: "shop", password: "canary-password" }],
};
const elsewhere = `registry.example/web@sha256:${"ab".repeat(32)}`;
new azure.ContainerGroup("azure", { ...group(elsewhere), ...volumes, resourceGroupName: "shops" });
new kubernetes.ContainerGroup("kubernetes", { ...group(elsewhere), ...volumes, namespace: "shops" });
