import * as pulumi from "@pulumi/pulumi";
import { Deployment } from "@pulumi/kubernetes/apps/v1/deployment";
import { Pod } from "@pulumi/kubernetes/core/v1/pod";
import { Secret } from "@pulumi/kubernetes/core/v1/secret";
import { Service } from "@pulumi/kubernetes/core/v1/service";
import { NetworkPolicy } from "@pulumi/kubernetes/networking/v1/networkPolicy";
import type { networking } from "@pulumi/kubernetes/types/input";
import { checkGroup } from "../group/checks.js";
import { lift, mapItems, verified, withDefault } from "../group/inputs.js";
import type * as model from "../group/model.js";
import { type ArgumentCheck, isGiven, isLate, known } from "../internal/arguments.js";
import { Component } from "../internal/component.js";
import { mayHoldSecrets, podSpec, registryConfiguration, secretData } from "./pod.js";
import { hostPort } from "../../shared/host-port.js";
import { checkKubernetes, kubernetesRules } from "./rules.js";

/** Arguments of a group on Kubernetes: those that all backends share, and where in the cluster it runs. */
export interface ContainerGroupArgs extends model.GroupArgs {
  /** Default: the provider's. A change replaces the group. */
  namespace?: pulumi.Input<string | undefined>;
  /** A RuntimeClass of the cluster, e.g. one whose pods are virtual machines. Default: the cluster's runtime. */
  runtimeClassName?: pulumi.Input<string | undefined>;
}

/** Where a port of the group is reached. */
export interface Endpoint {
  port: number;
  protocol: string;
  /** address:port. */
  address: string;
}

/**
 * Containers that run together as one pod of a Kubernetes cluster. Experimental: a real API server accepts what it
 * makes; it has run on no cluster yet. Images are named by digest as everywhere in Palisade; the cluster does not check
 * their seals.
 *
 * A group that is to run always is a Deployment with one pod, another a bare Pod. Its ports are a Service: a load
 * balancer for `Public`, an address of the cluster for `Private`. A NetworkPolicy lets nothing in but what `ipAddress`
 * names. Secure values, secret volumes and passwords are Secrets that are replaced when they change, so that the pod
 * starts anew with them. The pod satisfies the Pod Security Standard `restricted`: no container of it runs as root.
 *
 * @throws ArgumentError in preview, with the path of each wrong field.
 * @see https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted
 */
export class ContainerGroup extends Component {
  /** Name of the Deployment or Pod, the Service and the NetworkPolicy. */
  public readonly containerGroupName: pulumi.Output<string>;
  /** Where the group's ports are reached; empty without `ipAddress`. */
  public readonly endpoints: pulumi.Output<Endpoint[]>;
  /** Running or Pending; of a bare pod its phase. */
  public readonly state: pulumi.Output<string>;
  /** What runs the containers. */
  public readonly workload: Deployment | Pod;
  private publishing?: Service;

  /** Absent without `ipAddress`, and until an `ipAddress` that is an output is known. */
  public get service(): Service | undefined {
    return this.publishing;
  }

  constructor(name: string, args: ContainerGroupArgs, opts?: pulumi.ComponentResourceOptions) {
    const checked = Component.checked("ContainerGroup", name, args, (check, all) => checkArguments(check, name, all));
    super("ContainerGroup", name, {}, opts, [], "kubernetes");

    const { ipAddress } = checked;
    const late = verified(`ContainerGroup "${name}"`, checked, (check, all) => checkArguments(check, name, all));
    const options = this.childOptions({ dependsOn: late });
    const groupName = withDefault(checked.containerGroupName, name);
    const labels = { "app.kubernetes.io/name": groupName, "app.kubernetes.io/managed-by": "palisade" };
    const selector = { "app.kubernetes.io/name": groupName };
    const metadata = { name: groupName, namespace: checked.namespace as pulumi.Input<string>, labels };

    // Without a name of our own, and immutable: other contents are another Secret, and so another pod.
    const secretMetadata = { namespace: metadata.namespace, labels };
    const values = mayHoldSecrets(checked)
      ? new Secret(
          this.childName("values"),
          { metadata: secretMetadata, immutable: true, data: secretData(checked) },
          options,
        )
      : undefined;
    const registries =
      checked.imageRegistryCredentials &&
      new Secret(
        this.childName("registries"),
        {
          metadata: secretMetadata,
          immutable: true,
          type: "kubernetes.io/dockerconfigjson",
          stringData: { ".dockerconfigjson": registryConfiguration(checked.imageRegistryCredentials) },
        },
        options,
      );
    const spec = podSpec(checked, { values: values?.metadata.name, registries: registries?.metadata.name });

    new NetworkPolicy(
      this.childName("policy"),
      {
        metadata,
        spec: {
          podSelector: { matchLabels: selector },
          policyTypes: ["Ingress"],
          ingress: ingressOf(ipAddress),
        },
      },
      options,
    );
    this.workload =
      (known(checked.restartPolicy) ?? "Always") === "Always"
        ? new Deployment(
            this.childName("deployment"),
            {
              metadata,
              spec: {
                replicas: 1,
                selector: { matchLabels: selector },
                // A group is one: two of it never run at the same time.
                strategy: { type: "Recreate" },
                template: { metadata: { labels }, spec },
              },
            },
            options,
          )
        : new Pod(this.childName("pod"), { metadata, spec }, options);
    const service = lateResource(ipAddress, (address) => {
      this.publishing = new Service(
        this.childName("service"),
        {
          metadata,
          spec: {
            selector,
            type: lift(address, (known) =>
              lift(withDefault(known?.type, "Public"), (type) => (type === "Public" ? "LoadBalancer" : "ClusterIP")),
            ) as pulumi.Input<string>,
            ports: mapItems(portsOf(address), servicePort),
          },
        },
        options,
      );
      return endpointsOf(this.publishing);
    });

    this.containerGroupName = this.workload.metadata.name;
    this.endpoints = service;
    this.state = stateOf(this.workload);
    this.registerOutputs({
      containerGroupName: this.containerGroupName,
      endpoints: this.endpoints,
      state: this.state,
    });
  }
}

function checkArguments(check: ArgumentCheck, name: string, args: ContainerGroupArgs): void {
  checkGroup(check, name, args, kubernetesRules);
  checkKubernetes(check, args);
}

type IpAddress = model.GroupArgs["ipAddress"];

function portsOf(ipAddress: NonNullable<IpAddress>): model.List<model.PortArgs> {
  return lift(ipAddress, (address) => address?.ports ?? []) as model.List<model.PortArgs>;
}

/** Without ports there is no rule: one with an empty list of them would open every port. */
function ingressOf(ipAddress: IpAddress): pulumi.Input<networking.v1.NetworkPolicyIngressRule[]> {
  return lift(ipAddress, (address) => {
    if (!isGiven(address?.ports)) return [];
    return lift(address.ports, (ports) => (ports?.length ? [{ ports: mapItems(ports, policyPort) }] : []));
  }) as pulumi.Input<networking.v1.NetworkPolicyIngressRule[]>;
}

/**
 * The result of `make` for an address, once it is known that there is one; without an address, an empty list. An
 * address that a preview does not know counts as given, so that the preview does not show its resource as deleted.
 */
function lateResource(
  ipAddress: IpAddress,
  make: (address: NonNullable<IpAddress>) => pulumi.Output<Endpoint[]>,
): pulumi.Output<Endpoint[]> {
  if (!isGiven(ipAddress)) return pulumi.output([]);
  if (!isLate(ipAddress)) return make(ipAddress);
  const output = pulumi.output(ipAddress) as unknown as LateOutput<model.IpAddressArgs | undefined>;
  return output.apply((address) => {
    if (pulumi.isUnknown(address)) return make(ipAddress);
    return isGiven(address) ? make(ipAddress) : [];
  }, true);
}

/** Pulumi's `apply` with the second parameter that its own code uses: called with what is not known, too. */
interface LateOutput<T> {
  apply<R>(change: (value: T) => pulumi.Input<R>, runWithUnknowns: boolean): pulumi.Output<R>;
}

const policyPort = ({ port, protocol }: model.PortArgs) => ({
  port,
  protocol: withDefault(protocol, "TCP"),
});

const servicePort = ({ port, protocol }: model.PortArgs) => ({
  name: pulumi.all([port, protocol]).apply(([number, kind]) => `${(kind ?? "TCP").toLowerCase()}-${number}`),
  port,
  protocol: withDefault(protocol, "TCP"),
  targetPort: port,
});

function endpointsOf(service: Service | undefined): pulumi.Output<Endpoint[]> {
  if (service === undefined) return pulumi.output([]);
  return pulumi.all([service.spec, service.status]).apply(([spec, status]) => {
    const [entry] = status?.loadBalancer?.ingress ?? [];
    const host = spec.type === "LoadBalancer" ? (entry?.ip ?? entry?.hostname) : spec.clusterIP;
    if (host === undefined) return [];
    return (spec.ports ?? []).map(({ port, protocol }) => ({
      port,
      protocol: protocol ?? "TCP",
      address: hostPort(host, port),
    }));
  });
}

function stateOf(workload: Deployment | Pod): pulumi.Output<string> {
  return workload instanceof Pod
    ? workload.status.apply((status) => status?.phase ?? "Pending")
    : workload.status.apply((status) => (status?.availableReplicas ? "Running" : "Pending"));
}
