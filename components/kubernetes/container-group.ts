import * as pulumi from "@pulumi/pulumi";
import { Deployment } from "@pulumi/kubernetes/apps/v1/deployment";
import { Pod } from "@pulumi/kubernetes/core/v1/pod";
import { Secret } from "@pulumi/kubernetes/core/v1/secret";
import { Service } from "@pulumi/kubernetes/core/v1/service";
import { NetworkPolicy } from "@pulumi/kubernetes/networking/v1/networkPolicy";
import { checkGroup } from "../group/checks.js";
import { lift, mapItems, verified } from "../group/inputs.js";
import type * as model from "../group/model.js";
import { ArgumentCheck, known } from "../internal/arguments.js";
import { Component } from "../internal/component.js";
import { mayHoldSecrets, podSpec, registryConfiguration, secretData } from "./pod.js";
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
 * Containers that run together as one pod of a Kubernetes cluster. Experimental: a real API server accepts what it makes; it
 * has run on no cluster yet. Images are named by digest as everywhere in Palisade; their seals mean nothing to the cluster.
 *
 * A group that is to run always is a Deployment with one pod, another a bare Pod. Its ports are a Service: a load balancer for
 * `Public`, an address of the cluster for `Private`. A NetworkPolicy lets nothing in but what `ipAddress` names. Secure values,
 * secret volumes and passwords are Secrets that are replaced when they change, so that the pod starts anew with them. The pod
 * satisfies the Pod Security Standard `restricted`: no container of it runs as root.
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
  /** Absent without `ipAddress`. */
  public readonly service?: Service;

  constructor(name: string, args: ContainerGroupArgs, opts?: pulumi.ComponentResourceOptions) {
    const check = Component.checkFor("ContainerGroup", name);
    checkArguments(check, args);
    check.refuse();
    super("ContainerGroup", name, {}, opts, [], "kubernetes");

    const late = verified(args, (resolved) => {
      const again = new ArgumentCheck(`ContainerGroup "${name}"`);
      checkArguments(again, resolved);
      again.refuse();
    });
    const options = this.childOptions({ dependsOn: late });
    const groupName = lift(args.containerGroupName ?? name, (value) => value ?? name);
    const labels = { "app.kubernetes.io/name": groupName, "app.kubernetes.io/managed-by": "palisade" };
    const selector = { "app.kubernetes.io/name": groupName };
    const metadata = { name: groupName, namespace: args.namespace as pulumi.Input<string>, labels };

    // Without a name of our own, and immutable: other contents are another Secret, and so another pod.
    const secretMetadata = { namespace: metadata.namespace, labels };
    const values = mayHoldSecrets(args)
      ? new Secret(
          this.childName("values"),
          { metadata: secretMetadata, immutable: true, data: secretData(args) },
          options,
        )
      : undefined;
    const registries =
      args.imageRegistryCredentials &&
      new Secret(
        this.childName("registries"),
        {
          metadata: secretMetadata,
          immutable: true,
          type: "kubernetes.io/dockerconfigjson",
          stringData: { ".dockerconfigjson": registryConfiguration(args.imageRegistryCredentials) },
        },
        options,
      );
    const spec = podSpec(args, { values: values?.metadata.name, registries: registries?.metadata.name });

    new NetworkPolicy(
      this.childName("policy"),
      {
        metadata,
        spec: {
          podSelector: { matchLabels: selector },
          policyTypes: ["Ingress"],
          ingress: args.ipAddress === undefined ? [] : [{ ports: mapItems(portsOf(args.ipAddress), policyPort) }],
        },
      },
      options,
    );
    this.workload =
      known(args.restartPolicy) === undefined || known(args.restartPolicy) === "Always"
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
    if (args.ipAddress !== undefined) {
      this.service = new Service(
        this.childName("service"),
        {
          metadata,
          spec: {
            selector,
            type: lift(args.ipAddress, (ipAddress) =>
              lift(ipAddress?.type ?? "Public", (type) => (type === "Public" ? "LoadBalancer" : "ClusterIP")),
            ) as pulumi.Input<string>,
            ports: mapItems(portsOf(args.ipAddress), servicePort),
          },
        },
        options,
      );
    }

    this.containerGroupName = this.workload.metadata.name;
    this.endpoints = endpointsOf(this.service);
    this.state = stateOf(this.workload);
    this.registerOutputs({
      containerGroupName: this.containerGroupName,
      endpoints: this.endpoints,
      state: this.state,
    });
  }
}

function checkArguments(check: ArgumentCheck, args: ContainerGroupArgs): void {
  checkGroup(check, args, kubernetesRules);
  checkKubernetes(check, args);
}

function portsOf(ipAddress: NonNullable<model.GroupArgs["ipAddress"]>): model.List<model.PortArgs> {
  return lift(ipAddress, (known) => known?.ports ?? []) as model.List<model.PortArgs>;
}

const policyPort = ({ port, protocol }: model.PortArgs) => ({
  port,
  protocol: (protocol ?? "TCP") as pulumi.Input<string>,
});

const servicePort = ({ port, protocol }: model.PortArgs) => ({
  name: pulumi.all([port, protocol]).apply(([number, kind]) => `${(kind ?? "TCP").toLowerCase()}-${number}`),
  port,
  protocol: (protocol ?? "TCP") as pulumi.Input<string>,
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
      address: `${host}:${port}`,
    }));
  });
}

function stateOf(workload: Deployment | Pod): pulumi.Output<string> {
  return workload instanceof Pod
    ? workload.status.apply((status) => status?.phase ?? "Pending")
    : workload.status.apply((status) => (status?.availableReplicas ? "Running" : "Pending"));
}
