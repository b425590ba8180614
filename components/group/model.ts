/**
 * The arguments that every backend of container groups understands: a subset, under the same names, of those of
 * `azure-native.containerinstance.ContainerGroup`. A backend refuses, in preview, what it cannot apply.
 *
 * @see https://learn.microsoft.com/azure/templates/microsoft.containerinstance/containergroups
 */
import type * as pulumi from "@pulumi/pulumi";

/** A list whose items may become known one by one. */
export type List<T> = pulumi.Input<pulumi.Input<T>[]>;
/** The same where it may be absent. */
export type OptionalList<T> = pulumi.Input<pulumi.Input<T>[] | undefined>;

export interface PortArgs {
  /** 1 to 65535. */
  port: pulumi.Input<number>;
  /** TCP or UDP. Default: TCP. */
  protocol?: pulumi.Input<string | undefined>;
}

export interface EnvironmentVariableArgs {
  name: pulumi.Input<string>;
  /** Either this or `secureValue`. */
  value?: pulumi.Input<string | undefined>;
  /** A value that is kept secret. */
  secureValue?: pulumi.Input<string | undefined>;
}

export interface VolumeMountArgs {
  /** Absolute path in the container. */
  mountPath: pulumi.Input<string>;
  /** Name of one of the group's volumes. */
  name: pulumi.Input<string>;
  /** Default: false. */
  readOnly?: pulumi.Input<boolean | undefined>;
}

/** Exactly one of `exec` and `httpGet`; times in seconds. */
export interface ContainerProbeArgs {
  exec?: pulumi.Input<{ command?: OptionalList<string> } | undefined>;
  httpGet?: pulumi.Input<
    | {
        port: pulumi.Input<number>;
        /** Default: /. */
        path?: pulumi.Input<string | undefined>;
        /** http or https. Default: http. */
        scheme?: pulumi.Input<string | undefined>;
        httpHeaders?: OptionalList<{
          name?: pulumi.Input<string | undefined>;
          value?: pulumi.Input<string | undefined>;
        }>;
      }
    | undefined
  >;
  initialDelaySeconds?: pulumi.Input<number | undefined>;
  periodSeconds?: pulumi.Input<number | undefined>;
  timeoutSeconds?: pulumi.Input<number | undefined>;
  failureThreshold?: pulumi.Input<number | undefined>;
  successThreshold?: pulumi.Input<number | undefined>;
}

export interface SecurityContextArgs {
  allowPrivilegeEscalation?: pulumi.Input<boolean | undefined>;
  capabilities?: pulumi.Input<{ add?: OptionalList<string>; drop?: List<string> } | undefined>;
  privileged?: pulumi.Input<boolean | undefined>;
  runAsGroup?: pulumi.Input<number | undefined>;
  runAsUser?: pulumi.Input<number | undefined>;
}

export interface ResourceRequirementsArgs {
  /** Cores and GiB, in steps of 0.01. */
  requests: pulumi.Input<{ cpu: pulumi.Input<number>; memoryInGB: pulumi.Input<number> }>;
  /** Default: the requests. */
  limits?: pulumi.Input<
    { cpu?: pulumi.Input<number | undefined>; memoryInGB?: pulumi.Input<number | undefined> } | undefined
  >;
}

/** An image whose digest the program names. */
export interface PinnedImageArgs {
  /** server/repository */
  repository: pulumi.Input<string>;
  /** sha256:… */
  digest: pulumi.Input<string>;
}

/** An image whose digest a pipeline chooses, on hosts only. Pulumi does not change that digest. */
export interface ChannelImageArgs {
  /** server/repository */
  repository: pulumi.Input<string>;
  /**
   * A DNS label. A program that also publishes to the channel gives the output `channel` of its PatchedImage, so that
   * the group waits for it.
   */
  channel: pulumi.Input<string | undefined>;
  /**
   * PEM of the key (ECDSA on P-256) that must have signed the channel's publication. Default: the publication is not
   * verified, and only the image policies of the host decide.
   */
  publicKey?: pulumi.Input<string | undefined>;
}

/** How a container's image is named. */
export type ImageArgs = pulumi.Input<string> | PinnedImageArgs | ChannelImageArgs;

export interface InitContainerArgs {
  /** DNS label, unique in the group. */
  name: pulumi.Input<string>;
  /** Reference with a digest, server/repository@sha256:…, or its parts. */
  image: pulumi.Input<string> | PinnedImageArgs;
  /** Replaces the image's entry point and command. */
  command?: OptionalList<string>;
  environmentVariables?: OptionalList<EnvironmentVariableArgs>;
  volumeMounts?: OptionalList<VolumeMountArgs>;
  securityContext?: pulumi.Input<SecurityContextArgs | undefined>;
}

export interface ContainerArgs extends InitContainerArgs {
  /** Unique in the group, as its containers share one network namespace. */
  ports?: OptionalList<PortArgs>;
  resources: pulumi.Input<ResourceRequirementsArgs>;
  livenessProbe?: pulumi.Input<ContainerProbeArgs | undefined>;
  readinessProbe?: pulumi.Input<ContainerProbeArgs | undefined>;
}

/** A volume has exactly one kind. */
export interface VolumeArgs {
  name: pulumi.Input<string>;
  /** `{}`: empty when the group starts, gone with it. */
  emptyDir?: object | undefined;
  /** Files by name, their contents in base64; kept secret. */
  secret?: pulumi.Input<Record<string, pulumi.Input<string>> | undefined>;
}

export interface ImageRegistryCredentialArgs {
  /** As in image references: host[:port]. */
  server: pulumi.Input<string>;
  username?: pulumi.Input<string | undefined>;
  /** Kept secret. */
  password?: pulumi.Input<string | undefined>;
}

export interface IpAddressArgs {
  /** Ports under which the group is reached; each is one that a container listens on. */
  ports: List<PortArgs>;
  /** Public or Private. */
  type?: pulumi.Input<string>;
}

export interface GroupArgs {
  /** A DNS label. Default: the component's name. A change replaces the group. */
  containerGroupName?: pulumi.Input<string | undefined>;
  /** 1 to 60. */
  containers: List<ContainerArgs>;
  /** Run one after the other, each to its end, before the containers start. */
  initContainers?: OptionalList<InitContainerArgs>;
  volumes?: OptionalList<VolumeArgs>;
  imageRegistryCredentials?: OptionalList<ImageRegistryCredentialArgs>;
  /** Absent: nothing of the group is reached from outside. */
  ipAddress?: pulumi.Input<IpAddressArgs | undefined>;
  /** Default: Linux. */
  osType?: pulumi.Input<string | undefined>;
  /** Always, OnFailure or Never. Default: Always. */
  restartPolicy?: pulumi.Input<string | undefined>;
}
