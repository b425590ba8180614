/**
 * The environment `local`: a registry, an image and its seal, a host in a virtual machine with its network policy, and
 * a group on it, all on this machine.
 */
import * as pulumi from "@pulumi/pulumi";
import {
  ContainerGroup,
  DebianImage,
  keyPair,
  NestedHost,
  NetworkPolicy,
  PatchedImage,
  Registry,
  SealedImage,
} from "../components/index.js";
import type { Configuration } from "./configuration.js";
import { hostImage } from "./host.js";
import { files, port, website, websitePolicy } from "./website.js";

/** Declares the environment; returns the stack's outputs. */
export function local(configuration: Configuration) {
  const { provider, image, keysDirectory } = hostImage(configuration);
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
      // The packages of the last point release, so that there is something to patch.
      securityUpdates: false,
      packageSources: true,
      entrypoint: ["/usr/sbin/nginx"],
      files,
    },
    { provider },
  );
  const signer = (name: string) => keyPair(keysDirectory, name);
  const patched = new PatchedImage(
    "nginx",
    {
      registry: access,
      repository: "web/nginx",
      digest: nginx.digest,
      tag: "patched",
      imageSigner: signer("images/signer"),
    },
    { provider },
  );
  const sealed = new SealedImage(
    "nginx",
    {
      registry: access,
      repository: "web/nginx",
      digest: patched.patchedDigest,
      layerSigner: signer("layers/layer"),
      sealSigner: signer("layers/seal"),
      imageSigner: signer("images/signer"),
    },
    { provider },
  );
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
  const network = new NetworkPolicy("network", { host: host.connection, ...websitePolicy }, { provider });
  const web = new ContainerGroup(
    "web",
    {
      host: host.connection,
      ...website(sealed.reference),
      imageRegistryCredentials: [access],
    },
    // The policy applies from the group's first packet.
    { provider, dependsOn: network },
  );
  const address = web.endpoints.apply((endpoints) => endpoints?.[0]?.address);
  return {
    /** Where the group answers. */
    url: pulumi.interpolate`http://${address}/`,
    /** The same as address:port. */
    address,
    /** Integrity as the host's kernel reports it. */
    integrity: host.integrity,
    /** Identity of the host. */
    hostId: host.hostId,
    /** Digest of the image the host runs. */
    hostImage: image.imageDigest,
    /** Integrity mode of the host: enforce, audit or jit. */
    mode: image.mode,
    /** kvm or tcg. */
    accelerator: host.accelerator,
    /** Seconds from the machine's last start to ready. */
    bootSeconds: host.bootSeconds,
    /** File with the host's serial console. */
    serialLog: host.serialLog,
    /** The local registry, as in image references. */
    registry: registry.server,
    /** Vulnerabilities of the group's image that some version fixes, before and after patching. */
    vulnerabilities: pulumi
      .all([patched.fixableBefore, patched.fixableAfter])
      .apply(([before, after]) => ({ fixableBefore: before, fixableAfter: after })),
    /** Where the OpenVEX attestation of the patched image is; absent when nothing was patched. */
    vex: patched.vexReference,
    /** What the group runs, by digest. */
    image: sealed.reference,
    /** Name of the group on the host. */
    group: web.containerGroupName,
    /** State of the group. */
    groupState: web.state,
  };
}
