/** The environment `local`: a registry, an image, a host in a virtual machine and a group on it, all on this machine. */
import * as pulumi from "@pulumi/pulumi";
import { ContainerGroup, DebianImage, HostImage, NestedHost, Provider, Registry } from "../components/index.js";
import { defaultKeysDirectory } from "../components/internal/directories.js";
import type { Configuration } from "./configuration.js";
import { files, port } from "./website.js";

/** Declares the environment; returns the stack's outputs. */
export function local(configuration: Configuration) {
  const keysDirectory = configuration.keysDirectory ?? defaultKeysDirectory();
  // A provider of its own: the default one would be given every setting of the namespace `palisade`, also those of the stack.
  const provider = new Provider("palisade", {
    stateDirectory: configuration.stateDirectory,
    cacheDirectory: configuration.cacheDirectory,
  });
  const registry = new Registry("registry", {}, { provider });
  const access = {
    server: registry.server,
    username: registry.username,
    password: registry.password,
    ca: registry.ca,
  };
  const nginx = new DebianImage(
    "nginx",
    {
      registry: access,
      repository: "web/nginx",
      suite: "trixie",
      packages: ["nginx"],
      entrypoint: ["/usr/sbin/nginx"],
      files,
    },
    { provider },
  );
  const image = new HostImage("host", { build: { keysDirectory } }, { provider });
  const host = new NestedHost(
    "host",
    {
      image: image.imageDigest,
      cpus: configuration.cpus,
      memoryMiB: configuration.memoryMiB,
      stateDiskGiB: configuration.stateDiskGiB,
      protectState: configuration.protectState,
      forceDestroy: configuration.forceDestroy,
      acceleration: configuration.acceleration,
      publishedPorts: [{ port, protocol: "TCP", hostAddress: "127.0.0.1", hostPort: configuration.hostPort }],
      keysDirectory,
    },
    { provider },
  );
  const web = new ContainerGroup(
    "web",
    {
      host: host.connection,
      containers: [
        {
          name: "nginx",
          image: nginx.reference,
          ports: [{ port, protocol: "TCP" }],
          resources: { requests: { cpu: 0.5, memoryInGB: 0.25 }, limits: { cpu: 1, memoryInGB: 0.5 } },
        },
      ],
      ipAddress: { type: "Public", ports: [{ port, protocol: "TCP" }] },
      restartPolicy: "Always",
      imageRegistryCredentials: [access],
    },
    { provider },
  );
  const address = web.endpoints.apply((endpoints) => endpoints?.[0]?.address);
  return {
    url: pulumi.interpolate`http://${address}/`,
    address,
    integrity: host.integrity,
    hostId: host.hostId,
    hostImage: image.imageDigest,
    accelerator: host.accelerator,
    bootSeconds: host.bootSeconds,
    serialLog: host.serialLog,
    registry: registry.server,
    group: web.containerGroupName,
    groupState: web.state,
  };
}
