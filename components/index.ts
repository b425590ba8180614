/**
 * Palisade: hardened, immutable container hosts and serverless container groups, as code.
 *
 * Components are what programs use; the resources beneath them are exported for imports and for compositions of one's
 * own.
 */
// Registers the resources' types, so that references to them in a stack's state become objects again.
import "../sdk/index.js";
export { NestedHost, type NestedHostArgs } from "./host/nested-host.js";
export {
  type ChannelImageArgs,
  type ContainerArgs,
  ContainerGroup,
  type ContainerGroupArgs,
  type IpAddressArgs,
  type PinnedImageArgs,
} from "./group/container-group.js";
export { ArgumentError, type Problem } from "./internal/arguments.js";
export * from "./image/index.js";
export { type HostNetworkPolicyArgs, NetworkPolicy } from "./network/network-policy.js";
export {
  type ClusterNetworkPolicyArgs,
  type CompiledPolicy,
  compileNetworkPolicies,
  type KubernetesNetworkPolicy,
  type NetworkPolicyArgs,
  networkPolicyFromKubernetes,
  type NetworkPolicyPeer,
  type NetworkPolicyPort,
  type PolicyEndpoint,
  type PolicyNamespace,
  type PolicySet,
} from "./policy/index.js";
export * from "./registry/index.js";
export { defaultKeysDirectory, keyPair } from "../shared/directories.js";
// For programs that check their settings before they declare anything.
export {
  referenceForm as imageReferenceForm,
  referenceProblem as imageReferenceProblem,
  serverProblem as registryServerProblem,
} from "../shared/image-reference.js";
export { GroupDeployment, type GroupDeploymentArgs } from "../sdk/groupDeployment.js";
export { Provider, type ProviderArgs } from "../sdk/provider.js";
export { StateDisk, type StateDiskArgs } from "../sdk/stateDisk.js";
export { VirtualMachine, type VirtualMachineArgs } from "../sdk/virtualMachine.js";
export * as types from "../sdk/types/index.js";
