/**
 * Palisade: hardened, immutable container hosts and serverless container groups, as code.
 *
 * Components are what programs use; the resources beneath them are exported for imports and for compositions of one's own.
 */
export { NestedHost, type NestedHostArgs } from "./host/nested-host.js";
export { ContainerGroup, type ContainerGroupArgs, type IpAddressArgs } from "./group/container-group.js";
export { ArgumentError, type Problem } from "./internal/arguments.js";
export * from "./image/index.js";
export * from "./registry/index.js";
export {
  GroupDeployment,
  type GroupDeploymentArgs,
  Provider,
  type ProviderArgs,
  StateDisk,
  type StateDiskArgs,
  VirtualMachine,
  type VirtualMachineArgs,
  types,
} from "./sdk/index.js";
