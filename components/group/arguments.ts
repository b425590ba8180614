/** The arguments of a container group on a host, and the checks of them that need no host. */
import * as pulumi from "@pulumi/pulumi";
import { argumentNames } from "../internal/argument-names.js";
import { type ArgumentCheck, known } from "../internal/arguments.js";
import type * as inputs from "../../sdk/types/input.js";
import { checkGroup, type GroupRules } from "./checks.js";
import { sharedFields } from "./fields.js";
import type * as model from "./model.js";

/** As in Azure Container Instances: the ports under which the group is reached. */
export interface IpAddressArgs {
  /** Ports of the group published on its host's address; each is one that a container listens on. */
  ports: pulumi.Input<pulumi.Input<inputs.ContainerPortArgs>[]>;
  /** Only `Public`: on the host's address. Default: Public. */
  type?: pulumi.Input<string>;
}

/** As in Azure Container Instances, with an image that may follow a channel. */
export interface ContainerArgs extends Omit<inputs.ContainerArgs, "image" | "imageChannel"> {
  /**
   * A reference with a digest, server/repository@sha256:…, or its parts `{ repository, digest }`: Pulumi rolls out each
   * change. Or a channel, `{ repository, channel }`, that a pipeline moves: the group starts with the digest to which
   * the channel points then. Later only the pipeline changes the digest that runs; `observedContainers` reports it.
   */
  image: model.ImageArgs;
}

/** Arguments of `ContainerGroup`: those of `azure-native.containerinstance.ContainerGroup`, and `host`. */
export interface ContainerGroupArgs {
  /** Where the group runs: the `connection` of a host. Another host replaces the group. */
  host: pulumi.Input<inputs.HostConnectionArgs>;
  /** Name on the host, a DNS label, unique there. Default: the component's name. A change replaces the group. */
  containerGroupName?: pulumi.Input<string>;
  /** 1 to 60 containers; they share one network namespace. */
  containers: pulumi.Input<pulumi.Input<ContainerArgs>[]>;
  /** Registries that need credentials or a CA. Passwords are write-only. */
  imageRegistryCredentials?: pulumi.Input<pulumi.Input<inputs.ImageRegistryCredentialArgs>[]>;
  /** Absent: the group is reached on its host only. */
  ipAddress?: pulumi.Input<IpAddressArgs>;
  /** Only `Linux`. Default: Linux. */
  osType?: pulumi.Input<string>;
  /** Always, OnFailure or Never. Default: Always. */
  restartPolicy?: pulumi.Input<string>;
}

const groupArguments = argumentNames<ContainerGroupArgs>({
  host: true,
  containerGroupName: true,
  containers: true,
  imageRegistryCredentials: true,
  ipAddress: true,
  osType: true,
  restartPolicy: true,
});

const onAzureOnly = "belongs to Azure and means nothing on a host; leave it out";

/** Arguments of azure-native's group that a host cannot apply. Ignoring them would change the meaning of a program. */
const refusedGroupFields: Record<string, string> = {
  confidentialComputeProperties: "a host has no confidential containers",
  containerGroupProfile: onAzureOnly,
  diagnostics: "a host sends no logs to Azure; read them with `palisade logs`",
  dnsConfig: "a host's groups use the host's DNS servers",
  encryptionProperties: "a group's data is on its host's state disk; there is no key of a group's own",
  extensions: onAzureOnly,
  identity: "a host has no managed identities; pass credentials as secureValue of an environment variable",
  initContainers: "a host runs no init containers",
  location: onAzureOnly,
  priority: "a host has no spot capacity",
  resourceGroupName: onAzureOnly,
  sku: onAzureOnly,
  standbyPoolProfile: onAzureOnly,
  subnetIds: "a host's groups are in no virtual network of Azure",
  tags: "a host keeps no tags of a group",
  volumes: "a host mounts no volumes into groups",
  zones: "a host is one machine; put groups on several hosts instead",
};

const refusedContainerFields: Record<string, string> = {
  configMap: "a host has no configuration maps; use environmentVariables",
  livenessProbe: "a host probes no containers; it restarts those that end",
  readinessProbe: "a host probes no containers; it restarts those that end",
  securityContext: "every container runs with the host's own profile",
  volumeMounts: "a host mounts no volumes into groups",
};

/** The arguments that a host accepts. */
export const hostRules: GroupRules = {
  backend: "host",
  group: { allowed: groupArguments, refused: refusedGroupFields },
  container: {
    allowed: argumentNames<ContainerArgs>({
      name: true,
      image: true,
      command: true,
      environmentVariables: true,
      ports: true,
      resources: true,
    }),
    refused: refusedContainerFields,
  },
  image: { allowed: [...sharedFields.image, "channel", "publicKey"] },
  environmentVariable: {
    allowed: sharedFields.environmentVariable,
    refused: { secureValueReference: "a host has no Key Vault; use secureValue" },
  },
  amounts: { allowed: sharedFields.amounts, refused: { gpu: "a host has no GPUs to give" } },
  credential: {
    allowed: [...sharedFields.credential, "ca"],
    refused: {
      identity: "a host has no managed identities; use username and password",
      identityUrl: "a host has no managed identities; use username and password",
      passwordReference: "a host has no Key Vault; use password",
    },
  },
  ipAddress: {
    allowed: sharedFields.ipAddress,
    refused: {
      autoGeneratedDomainNameLabelScope: "a host gives groups no domain names",
      dnsNameLabel: "a host gives groups no domain names",
      ip: "a group is reached on its host's address",
    },
  },
};

/** Checks everything that is known now. */
export function checkGroupArguments(check: ArgumentCheck, name: string, args: ContainerGroupArgs): void {
  checkGroupOnHost(check, name, args);
  check.require("host", args.host);
  const host = known(args.host);
  if (host !== undefined && (typeof host !== "object" || !("hostId" in host) || host instanceof pulumi.Resource)) {
    check.add("host", undefined, "must be the connection of a host, e.g. host.connection");
  }
}

/** Checks what does not depend on the host. */
export function checkGroupOnHost(check: ArgumentCheck, name: string, args: Omit<ContainerGroupArgs, "host">): void {
  // Of the shared arguments, only a host takes channels.
  checkGroup(check, name, args as model.GroupArgs, hostRules);
}
