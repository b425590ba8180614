import * as pulumi from "@pulumi/pulumi";
import { CustomResource } from "@pulumi/kubernetes/apiextensions/customResource";
import { NetworkPolicy } from "@pulumi/kubernetes/networking/v1/networkPolicy";
import type { networking } from "@pulumi/kubernetes/types/input";
import { Component } from "../internal/component.js";
import { checkClusterPolicies, type ClusterPolicies, policyObjects } from "./policy-objects.js";

/** Arguments of {@link NetworkPolicies}: policies as for a host. */
export type NetworkPoliciesArgs = ClusterPolicies;

/**
 * Network policies in a cluster, from the arguments that a host's are compiled from. Experimental: a real API server
 * accepts them.
 *
 * What Kubernetes can express becomes a NetworkPolicy, which a network plugin of the cluster has to enforce. Denial,
 * entities and ICMP become CiliumNetworkPolicies, and tiers become ClusterNetworkPolicies of network-policy-api. Both
 * need `cilium: true`: other clusters would refuse or, worse, ignore them.
 *
 * @throws ArgumentError in preview, with the path of each field that has no form in the cluster.
 */
export class NetworkPolicies extends Component {
  constructor(name: string, args: NetworkPoliciesArgs, opts?: pulumi.ComponentResourceOptions) {
    Component.checked("NetworkPolicies", name, {}, (check) => checkClusterPolicies(check, args));
    super("NetworkPolicies", name, {}, opts, [], "kubernetes");

    for (const { apiVersion, kind, metadata, spec } of policyObjects(args)) {
      const role = metadata.namespace === undefined ? metadata.name : `${metadata.namespace}.${metadata.name}`;
      if (kind === "NetworkPolicy")
        new NetworkPolicy(
          this.childName(role),
          { metadata, spec: spec as networking.v1.NetworkPolicySpec },
          this.childOptions(),
        );
      else new CustomResource(this.childName(role), { apiVersion, kind, metadata, spec }, this.childOptions());
    }
    this.registerOutputs({});
  }
}
