import * as pulumi from "@pulumi/pulumi";
import { Component } from "../internal/component.js";
import { hostResourceOf } from "../internal/host-resource.js";
import { GroupDeployment, type GroupDeploymentArgs } from "../../sdk/groupDeployment.js";
import type * as outputs from "../../sdk/types/output.js";
import { checkGroupArguments, checkGroupOnHost, type ContainerGroupArgs, type IpAddressArgs } from "./arguments.js";
import { withImages } from "./images.js";
import { verified, withDefault } from "./inputs.js";
import { withSecretPasswords, withSecureValues } from "./secrets.js";

export type { ContainerArgs, ContainerGroupArgs, IpAddressArgs } from "./arguments.js";
export type { ChannelImageArgs, PinnedImageArgs } from "./model.js";

/**
 * Containers that run together on one host: they share a network namespace and are restarted as the policy says. Its
 * arguments are those of `azure-native.containerinstance.ContainerGroup`; what a host cannot honour is refused in
 * preview.
 *
 * The group is deleted with its host: a replaced or removed host takes it along without being asked.
 *
 * @throws ArgumentError in preview, with the path of each wrong field.
 * @see https://learn.microsoft.com/azure/templates/microsoft.containerinstance/containergroups
 */
export class ContainerGroup extends Component {
  /** Name on the host. */
  public readonly containerGroupName: pulumi.Output<string>;
  /** Where the group's ports are reached from the machine that runs Pulumi. */
  public readonly endpoints: pulumi.Output<outputs.PublishedAddress[]>;
  /** The group's own address on its host. */
  public readonly address: pulumi.Output<string>;
  /** Observed: Pending, Running, Succeeded, Failed or Stopped. */
  public readonly state: pulumi.Output<string>;
  /** Observed, container by container. */
  public readonly observedContainers: pulumi.Output<outputs.ContainerState[]>;
  /** The deployment on the host. */
  public readonly deployment: GroupDeployment;

  constructor(name: string, args: ContainerGroupArgs, opts?: pulumi.ComponentResourceOptions) {
    const checked = Component.checked("ContainerGroup", name, args, (check, all) =>
      checkGroupArguments(check, name, all),
    );
    super("ContainerGroup", name, {}, opts);

    const { host, containers, imageRegistryCredentials, ...rest } = checked;
    const late = verified(
      `ContainerGroup "${name}"`,
      { containers, imageRegistryCredentials, ...rest },
      (check, resolved) => checkGroupOnHost(check, name, resolved),
    );
    const deletedWith = opts?.deletedWith ?? hostResourceOf(host);
    this.deployment = new GroupDeployment(
      this.childName("deployment"),
      {
        host,
        name: withDefault(rest.containerGroupName, name),
        containers: withSecureValues(withImages(containers)),
        restartPolicy: rest.restartPolicy,
        ports: rest.ipAddress && publishedPorts(rest.ipAddress),
        imageRegistryCredentials: imageRegistryCredentials && withSecretPasswords(imageRegistryCredentials),
      },
      this.childOptions({ dependsOn: late, ...(deletedWith ? { deletedWith } : {}) }),
    );

    warnOfUnpublishedPorts(this.deployment);

    this.containerGroupName = this.deployment.name;
    this.endpoints = this.deployment.endpoints;
    this.address = this.deployment.address;
    this.state = this.deployment.state;
    this.observedContainers = this.deployment.observedContainers;
    this.registerOutputs({
      containerGroupName: this.containerGroupName,
      endpoints: this.endpoints,
      address: this.address,
      state: this.state,
    });
  }
}

/** Not an error: what publishes a host's ports may be outside this program. */
function warnOfUnpublishedPorts(deployment: GroupDeployment): void {
  pulumi.all([deployment.host, deployment.ports]).apply(([host, ports]) => {
    const published = host?.publishedPorts?.map(({ port, protocol }) => `${port}/${protocol}`);
    ports?.forEach(({ port, protocol }, index) => {
      const key = `${port}/${protocol ?? "TCP"}`;
      if (!published || published.includes(key)) return;
      void pulumi.log.warn(
        `ipAddress.ports[${index}].port = ${key}: the host does not publish it, so it is reached from the host only; ` +
          "add it to the host's publishedPorts",
        deployment,
      );
    });
  });
}

/** Nothing is published for an address that turns out not to be given. */
function publishedPorts(ipAddress: pulumi.Input<IpAddressArgs>): GroupDeploymentArgs["ports"] {
  return pulumi.output(ipAddress).apply((resolved) => resolved?.ports ?? undefined);
}
