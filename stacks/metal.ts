/** The environment `metal` (experimental): a machine in a rescue system becomes a host, and runs the website. */
import { isIPv6 } from "node:net";
import * as pulumi from "@pulumi/pulumi";
import { ContainerGroup, NetworkPolicy } from "../components/index.js";
import { BareMetalHost } from "../components/metal/index.js";
import { type Configuration, registryCredentials } from "./configuration.js";
import { hostImage } from "./host.js";
import { port, website, websitePolicy } from "./website.js";

/** Declares the environment; returns the stack's outputs. */
export function metal(configuration: Configuration) {
  const { provider, image, keysDirectory } = hostImage(configuration);
  const host = new BareMetalHost(
    "host",
    {
      connection: {
        host: configuration.sshHost!,
        port: configuration.sshPort,
        privateKey: pulumi.secret(configuration.sshPrivateKey!),
        hostKey: configuration.sshHostKey!,
      },
      image: image.imageDigest,
      disk: { serial: configuration.diskSerial! },
      allowOverwrite: configuration.allowOverwrite,
      keysDirectory,
    },
    { provider },
  );
  const network = new NetworkPolicy("network", { host: host.connection, ...websitePolicy }, { provider });
  const web = new ContainerGroup(
    "web",
    {
      host: host.connection,
      ...website(configuration.image!),
      imageRegistryCredentials: registryCredentials(configuration),
    },
    // The policy applies from the group's first packet.
    { provider, dependsOn: network },
  );
  // All ports of the machine are the group's own: there is no hypervisor that would have to publish them.
  const sshHost = configuration.sshHost!;
  const address = `${isIPv6(sshHost) ? `[${sshHost}]` : sshHost}:${port}`;
  return {
    /** Where the group answers. */
    url: `http://${address}/`,
    /** The same as address:port. */
    address,
    /** Integrity as the host's kernel reported it at the end of the installation. */
    integrity: host.integrity,
    /** Identity of the host. */
    hostId: host.hostId,
    /** The disk that was written, as the rescue system calls it. */
    device: host.device,
    /** Digest of the image the host runs. */
    hostImage: image.imageDigest,
    /** Integrity mode of the host: enforce, audit or jit. */
    mode: image.mode,
    /** Name of the group on the host. */
    group: web.containerGroupName,
    /** State of the group. */
    groupState: web.state,
  };
}
