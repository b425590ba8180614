/**
 * Palisade on Kubernetes (experimental). Needs the optional peer `@pulumi/kubernetes`, which the rest of Palisade never
 * loads.
 */
export { ContainerGroup, type ContainerGroupArgs, type Endpoint } from "./container-group.js";
export { NetworkPolicies, type NetworkPoliciesArgs } from "./network-policies.js";
export { policyObjects, type ClusterPolicies, type PolicyObject } from "./policy-objects.js";
