export type * from "./arguments.js";
export { compileNetworkPolicies } from "./compile.js";
export type { Action, CompiledDirection, CompiledEndpoint, CompiledPolicy, CompiledRule } from "./compiled.js";
export { networkPolicyFromKubernetes, type KubernetesNetworkPolicy } from "./kubernetes.js";
