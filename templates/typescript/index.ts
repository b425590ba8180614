import { homedir } from "node:os";
import path from "node:path";
import { ContainerGroup, DebianImage, HostImage, NestedHost, Registry, SealedImage } from "@palisade-host/palisade";
import * as pulumi from "@pulumi/pulumi";

const config = new pulumi.Config();

// Made by `npx palisade keys init`.
const keysDirectory =
  process.env["PALISADE_HOME"] === undefined
    ? path.join(process.env["XDG_DATA_HOME"] ?? path.join(homedir(), ".local/share"), "palisade/keys")
    : path.join(process.env["PALISADE_HOME"], "keys");
const signer = (name: string) => ({
  certificateFile: path.join(keysDirectory, `${name}.crt`),
  keyFile: path.join(keysDirectory, `${name}.key`),
});

// A virtual machine on this one, with Secure Boot and your own keys.
const hostImage = new HostImage("host", { build: { keysDirectory } });
const host = new NestedHost("edge", {
  image: hostImage.imageDigest,
  cpus: config.requireNumber("cpus"),
  memoryMiB: config.requireNumber("memoryMiB"),
  publishedPorts: [{ port: 80, hostPort: config.requireNumber("hostPort") }],
});

// An image of Debian packages. Any image in any registry will do, by its digest.
const registry = new Registry("registry");
const access = { server: registry.server, username: registry.username, password: registry.password, ca: registry.ca };
const image = new DebianImage("web", {
  registry: access,
  repository: "web",
  packages: ["nginx-light"],
  command: ["/usr/sbin/nginx", "-g", "daemon off;"],
});

// A host runs what is sealed, and nothing else.
const sealed = new SealedImage("web", {
  registry: access,
  repository: "web",
  digest: image.digest,
  layerSigner: signer("layers/layer"),
  sealSigner: signer("layers/seal"),
  imageSigner: signer("images/signer"),
});
const group = new ContainerGroup("web", {
  host: host.connection,
  containers: [
    {
      name: "nginx",
      image: sealed.reference,
      ports: [{ port: 80 }],
      resources: { requests: { cpu: 0.5, memoryInGB: 0.25 } },
    },
  ],
  ipAddress: { type: "Public", ports: [{ port: 80 }] },
  imageRegistryCredentials: [access],
});

export const endpoints = group.endpoints;
export const integrity = host.integrity;
