import * as pulumi from "@pulumi/pulumi";
import { ArgumentError, isGiven, isLate, type Problem, whenKnown } from "../internal/arguments.js";
import { hostResourceOf } from "../internal/host-resource.js";
import type { ClusterNetworkPolicyArgs, NetworkPolicyArgs, PolicyEndpoint, PolicySet } from "../policy/arguments.js";
import { lateNothing } from "../policy/check.js";
import { compileNetworkPolicies } from "../policy/compile.js";
import type { CompiledPolicy } from "../policy/compiled.js";
import { defaultNamespace } from "../policy/identities.js";
import { NetworkPolicy as Resource } from "../../sdk/networkPolicy.js";
import type * as inputs from "../../sdk/types/input.js";

/** A value in which each part may be an output. */
export type DeepInput<T> = pulumi.Input<
  T extends (infer Item)[] ? DeepInput<Item>[] : T extends object ? { [Field in keyof T]: DeepInput<T[Field]> } : T
>;

/** Arguments of `NetworkPolicy`: everything that decides which packet passes on one host. */
export interface HostNetworkPolicyArgs {
  /** Where it is in force: the `connection` of a host. Another host replaces the policy. */
  host: pulumi.Input<inputs.HostConnectionArgs>;
  /**
   * All groups of the host, by their names there (`containerGroupName`), with the labels that policies select them by.
   * A group that is left out can neither send nor receive. All of them are in the namespace `default`.
   */
  groups: DeepInput<Omit<PolicyEndpoint, "namespace">[]>;
  /** Default: none; then everything is allowed to the groups, unless a cluster policy says otherwise. */
  networkPolicies?: DeepInput<NetworkPolicyArgs[]>;
  /** An administrator's rules before and behind them. Default: none. */
  clusterNetworkPolicies?: DeepInput<ClusterNetworkPolicyArgs[]>;
}

/**
 * Who may talk with whom on one host.
 *
 * A host has one `NetworkPolicy`, which holds all policies of the host: they are compiled as a whole, and a change is
 * in force for all groups at once. It applies to the first packet of every group that starts after it, so let groups
 * depend on it. Without it, and after its deletion, everything is allowed.
 *
 * A refresh reports what the host's kernel holds instead of it, and an update repairs that.
 *
 * The import id is the host's id.
 *
 * @throws ArgumentError with every wrong field, its path, value and reason; for what is not known yet as soon as it is
 */
export class NetworkPolicy extends Resource {
  constructor(name: string, args: HostNetworkPolicyArgs, opts: pulumi.CustomResourceOptions = {}) {
    const { host, groups, networkPolicies, clusterNetworkPolicies } = args;
    const set = { endpoints: groups, networkPolicies, clusterNetworkPolicies };
    const policy = compiledPolicy(`NetworkPolicy "${name}"`, set);
    const machine = hostResourceOf(host);
    // A policy is gone with its host's disk.
    super(name, { host, policy }, machine ? { deletedWith: machine, ...opts } : opts);
  }
}

/** What holds no outputs is compiled at once, so that mistakes are reported where they were made. */
export function compiledPolicy(subject: string, set: unknown): pulumi.Input<CompiledPolicy> {
  const compile = (known: unknown) => compileFor(subject, known as PolicySet);
  return holdsOutputs(set) ? whenKnown(markLate(set), compile) : compile(set);
}

/** Compiles, and says what is wrong in the words of the arguments. */
function compileFor(subject: string, set: PolicySet): CompiledPolicy {
  const elsewhere = (list: { namespace?: string }[] | undefined, path: string): Problem[] =>
    (Array.isArray(list) ? list : []).flatMap((item: { namespace?: string } | null, index) =>
      typeof item?.namespace !== "string" || item.namespace === defaultNamespace
        ? []
        : [{ path: `${path}[${index}].namespace`, value: JSON.stringify(item.namespace), reason: onlyNamespace }],
    );
  const problems = [...elsewhere(set.endpoints, "groups"), ...elsewhere(set.networkPolicies, "networkPolicies")];
  try {
    const compiled = compileNetworkPolicies(set);
    if (problems.length === 0) return compiled;
  } catch (error) {
    if (!(error instanceof ArgumentError)) throw error;
    problems.push(
      ...error.problems.map(({ path, ...rest }) => ({ path: path.replace(/^endpoints/, "groups"), ...rest })),
    );
  }
  throw new ArgumentError(subject, problems);
}

const onlyNamespace = `all groups of a host are in the namespace ${defaultNamespace}: leave it out`;

/** Marks outputs that turn out to be nothing: where the default lets everything pass, they are refused. */
function markLate(value: unknown): unknown {
  if (isLate(value)) {
    const output = pulumi.output(value) as pulumi.Output<unknown>;
    return output.apply((known) => (isGiven(known) ? withNull(known) : lateNothing));
  }
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map(markLate);
  return Object.fromEntries(Object.entries(value).map(([name, content]) => [name, markLate(content)]));
}

/** Inside an output, a value that is undefined no longer shows whether it was an output itself. */
function withNull(value: unknown): unknown {
  if (value === undefined) return null;
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map(withNull);
  return Object.fromEntries(Object.entries(value).map(([name, content]) => [name, withNull(content)]));
}

function holdsOutputs(value: unknown): boolean {
  if (isLate(value)) return true;
  return typeof value === "object" && value !== null && Object.values(value).some(holdsOutputs);
}
