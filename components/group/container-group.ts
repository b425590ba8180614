import * as pulumi from "@pulumi/pulumi";
import { ArgumentCheck, rules, whenKnown } from "../internal/arguments.js";
import { Component } from "../internal/component.js";
import { hostResourceOf } from "../internal/host-resource.js";
import { GroupDeployment } from "../sdk/groupDeployment.js";
import type * as outputs from "../sdk/types/output.js";
import { checkGroupArguments, type ContainerGroupArgs, hostRules, type IpAddressArgs } from "./arguments.js";
import { checkIpAddress } from "./checks.js";
import { withImages } from "./images.js";
import { withSecretPasswords, withSecureValues } from "./secrets.js";

export type { ContainerArgs, ContainerGroupArgs, IpAddressArgs } from "./arguments.js";
export type { ChannelImageArgs, PinnedImageArgs } from "./model.js";

/**
 * Containers that run together on one host: they share a network namespace and are restarted as the policy says. Its
 * arguments are those of `azure-native.containerinstance.ContainerGroup`; what a host cannot honour is refused in preview.
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
    const check = Component.checkFor("ContainerGroup", name);
    checkGroupArguments(check, args);
    const groupName = check.field("containerGroupName", args.containerGroupName, rules.dnsLabel);
    const restartPolicy = check.field("restartPolicy", args.restartPolicy, rules.oneOf("Always", "OnFailure", "Never"));
    const osType = check.field("osType", args.osType, (value) =>
      value === "Linux" ? undefined : "must be Linux: hosts run Linux containers only",
    );
    check.refuse();
    super("ContainerGroup", name, {}, opts);

    const deletedWith = opts?.deletedWith ?? hostResourceOf(args.host);
    this.deployment = new GroupDeployment(
      this.childName("deployment"),
      {
        host: args.host,
        name: afterCheckOf(osType, groupName ?? name),
        containers: withSecureValues(withImages(args.containers)),
        restartPolicy,
        ports: args.ipAddress === undefined ? undefined : publishedPorts(name, args.ipAddress),
        imageRegistryCredentials: args.imageRegistryCredentials && withSecretPasswords(args.imageRegistryCredentials),
      },
      this.childOptions(deletedWith ? { deletedWith } : {}),
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

/** The operating system enters no resource: its check, when it is late, hangs on the name. */
function afterCheckOf(osType: pulumi.Input<string> | undefined, name: pulumi.Input<string>): pulumi.Input<string> {
  return pulumi.Output.isInstance(osType) ? pulumi.all([name, osType]).apply(([value]) => value) : name;
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

function publishedPorts(
  name: string,
  ipAddress: pulumi.Input<IpAddressArgs>,
): pulumi.Output<{ port: number; protocol?: string }[]> {
  return whenKnown(ipAddress, (resolved) => {
    const check = new ArgumentCheck(`ContainerGroup "${name}"`);
    checkIpAddress(check, resolved, undefined, hostRules);
    check.refuse();
    return resolved.ports;
  });
}
