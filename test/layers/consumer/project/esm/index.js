// The same program as ../index.js, as an ECMAScript module.
import { ContainerGroup, DebianImage, HostImage, NestedHost, Registry } from "@palisade-host/palisade";

const keysDirectory = process.env.CONSUMER_KEYS;
const registry = new Registry("registry");
const { server, username, password, ca } = registry;
const image = new DebianImage("web", {
  registry: { server, username, password, ca },
  repository: "web",
  packages: ["nginx"],
});
const hostImage = new HostImage("host", { build: { keysDirectory } });
const host = new NestedHost("host", { image: hostImage.imageDigest, keysDirectory, publishedPorts: [{ port: 80 }] });
const group = new ContainerGroup("web", {
  host: host.connection,
  containers: [
    {
      name: "web",
      image: image.reference,
      ports: [{ port: 80 }],
      environmentVariables: [{ name: "TOKEN", secureValue: "consumer-canary" }],
      resources: { requests: { cpu: 1, memoryInGB: 0.5 } },
    },
  ],
  ipAddress: { ports: [{ port: 80 }] },
  imageRegistryCredentials: [{ server, username, password, ca }],
});

export const endpoints = group.endpoints;
export const state = group.state;
export const secureBoot = host.integrity.apply((facts) => facts?.secureBoot);
