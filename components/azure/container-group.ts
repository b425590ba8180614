import * as pulumi from "@pulumi/pulumi";
import {
  ContainerGroup as AzureContainerGroup,
  type ContainerGroupArgs as AzureContainerGroupArgs,
} from "@pulumi/azure-native/containerinstance/containerGroup";
import { checkGroup } from "../group/checks.js";
import { imageReference } from "../group/images.js";
import { lift, mapItems, secret, verified, withDefault } from "../group/inputs.js";
import type { PinnedImageArgs } from "../group/model.js";
import { type ArgumentCheck, isGiven, isLate } from "../internal/arguments.js";
import { Component } from "../internal/component.js";
import { hostPort } from "../../shared/host-port.js";
import { azureRules, checkLimits } from "./limits.js";

/**
 * The arguments of azure-native's container group, without those that exist in ACI's preview API only. A container's
 * image may be given by its parts, too.
 */
export type ContainerGroupArgs = Omit<
  AzureContainerGroupArgs,
  "containerGroupProfile" | "standbyPoolProfile" | "containers"
> & {
  containers: pulumi.Input<pulumi.Input<ContainerArgs>[]>;
};

export type ContainerArgs = Omit<AzureContainerArgs, "image"> & { image: pulumi.Input<string> | PinnedImageArgs };

/** Where a port of the group is reached. */
export interface Endpoint {
  port: number;
  protocol: string;
  /** address:port. */
  address: string;
}

/**
 * Properties that ACI does not change on a living group; azure-native would try, and fail. Microsoft names the zone on
 * a page of its own.
 * @see https://learn.microsoft.com/azure/container-instances/container-instances-update#properties-that-require-container-delete
 * @see https://learn.microsoft.com/azure/reliability/reliability-containers#availability-zone-redeployment-and-migration
 */
export const replacing = ["osType", "restartPolicy", "containers[*].resources", "subnetIds", "zones"];

/** Outputs in which Azure or the provider may repeat a secret input. */
const secretOutputs = [
  "containers",
  "diagnostics",
  "extensions",
  "imageRegistryCredentials",
  "initContainers",
  "volumes",
];

/**
 * Containers that run together in Azure Container Instances, with the arguments of
 * `azure-native.containerinstance.ContainerGroup`. Experimental: it has been tested with Microsoft's published client,
 * not with Azure. Images are named by digest as everywhere in Palisade; ACI does not check their seals.
 *
 * Secure values, passwords, storage keys, secret volumes, workspace keys and protected settings are marked secret. What
 * ACI cannot change on a living group is shown as a replacement; the old group goes first, as the name is the same.
 *
 * @throws ArgumentError in preview, with the path of each wrong field and ACI's own limit.
 * @see https://learn.microsoft.com/azure/templates/microsoft.containerinstance/containergroups
 */
export class ContainerGroup extends Component {
  /** Name in the resource group. */
  public readonly containerGroupName: pulumi.Output<string>;
  /** Where the group's ports are reached; empty without `ipAddress`. */
  public readonly endpoints: pulumi.Output<Endpoint[]>;
  /** The group's address; absent without `ipAddress`. */
  public readonly address: pulumi.Output<string | undefined>;
  /** As ACI reports it, e.g. Running. */
  public readonly state: pulumi.Output<string>;
  /** azure-native's resource. */
  public readonly group: AzureContainerGroup;

  constructor(name: string, args: ContainerGroupArgs, opts?: pulumi.ComponentResourceOptions) {
    const checked = Component.checked("ContainerGroup", name, args, (check, all) => checkArguments(check, name, all));
    super("ContainerGroup", name, {}, opts, [], "azure");

    const late = verified(`ContainerGroup "${name}"`, checked, (check, resolved) => {
      checkArguments(check, name, resolved);
      // A group that was meant for a subnet must not become public because the subnet turned out to be absent.
      if (isLate(checked.subnetIds) && !isGiven(resolved.subnetIds)) {
        check.add("subnetIds", undefined, "turned out not to be given; leave it out for a group that is in no subnet");
      }
    });
    this.group = new AzureContainerGroup(
      this.childName("group"),
      toAzure(name, checked),
      this.childOptions({
        dependsOn: late,
        replaceOnChanges: replacing,
        deleteBeforeReplace: true,
        additionalSecretOutputs: secretOutputs,
      }),
    );

    this.containerGroupName = this.group.name;
    this.address = this.group.ipAddress.apply((ipAddress) => ipAddress?.ip);
    this.endpoints = this.group.ipAddress.apply(
      (ipAddress) =>
        ipAddress?.ports.map(({ port, protocol }) => ({
          port,
          protocol: protocol ?? "TCP",
          address: ipAddress.ip === undefined ? "" : hostPort(ipAddress.ip, port),
        })) ?? [],
    );
    this.state = this.group.instanceView.apply((view) => view.state);
    this.registerOutputs({
      containerGroupName: this.containerGroupName,
      endpoints: this.endpoints,
      address: this.address,
      state: this.state,
    });
  }
}

function checkArguments(check: ArgumentCheck, name: string, args: ContainerGroupArgs): void {
  checkGroup(check, name, args as Parameters<typeof checkGroup>[2], azureRules);
  checkLimits(check, args);
}

/** The arguments as azure-native takes them: the names of the two are the same; defaults and secrets are added. */
export function toAzure(name: string, args: ContainerGroupArgs): AzureContainerGroupArgs {
  const withSecureValues = <T extends Pick<AzureContainerArgs, "environmentVariables">>(container: T): T => ({
    ...container,
    environmentVariables: mapItems(container.environmentVariables, (variable) =>
      isGiven(variable.secureValue) ? { ...variable, secureValue: secret(variable.secureValue) } : variable,
    ),
  });
  return {
    ...args,
    containerGroupName: withDefault(args.containerGroupName, name),
    osType: withDefault(args.osType, "Linux"),
    restartPolicy: withDefault(args.restartPolicy, "Always"),
    ipAddress:
      args.ipAddress &&
      lift(
        args.ipAddress,
        (ipAddress) =>
          ipAddress && {
            ...ipAddress,
            type: withDefault(ipAddress.type, isGiven(args.subnetIds) ? "Private" : "Public"),
          },
      ),
    containers: mapItems(args.containers, (container) =>
      withSecureValues({ ...container, image: imageReference(container.image) }),
    ),
    initContainers: mapItems(args.initContainers, (container) =>
      withSecureValues({
        ...container,
        image: container.image && imageReference(container.image as pulumi.Input<string>),
      }),
    ),
    imageRegistryCredentials: mapItems(args.imageRegistryCredentials, (credential) => ({
      ...credential,
      password: secret(credential.password),
    })),
    volumes: mapItems(args.volumes, (volume) => ({
      ...volume,
      secret: secret(volume.secret),
      azureFile:
        volume.azureFile &&
        lift(
          volume.azureFile,
          (azureFile) => azureFile && { ...azureFile, storageAccountKey: secret(azureFile.storageAccountKey) },
        ),
    })),
    diagnostics:
      args.diagnostics &&
      lift(
        args.diagnostics,
        (diagnostics) =>
          diagnostics && {
            ...diagnostics,
            logAnalytics:
              diagnostics?.logAnalytics &&
              lift(
                diagnostics.logAnalytics,
                (analytics) => analytics && { ...analytics, workspaceKey: secret(analytics.workspaceKey)! },
              ),
          },
      ),
    extensions: mapItems(args.extensions, (extension) => ({
      ...extension,
      protectedSettings: secret(extension.protectedSettings),
    })),
  };
}

type AzureContainerArgs =
  AzureContainerGroupArgs["containers"] extends pulumi.Input<pulumi.Input<infer T>[]> ? T : never;
