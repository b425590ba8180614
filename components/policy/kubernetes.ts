/** From Kubernetes' NetworkPolicy to Palisade's: the same policy, with groups for pods. */
import { given, isGiven } from "../internal/arguments.js";
import type {
  IpBlock,
  LabelSelector,
  NetworkPolicyArgs,
  NetworkPolicyPeer,
  NetworkPolicyPort,
  PolicyType,
} from "./arguments.js";
import { parsePrefix } from "./cidr.js";

export interface KubernetesNetworkPolicyPeer {
  podSelector?: LabelSelector | null;
  namespaceSelector?: LabelSelector | null;
  ipBlock?: { cidr: string; except?: string[] | null } | null;
}

export interface KubernetesNetworkPolicyPort {
  protocol?: string | null;
  port?: number | string | null;
  endPort?: number | null;
}

/** An object of `networking.k8s.io/v1`, as `kubectl get -o json` prints it. What is not named here does not matter. */
export interface KubernetesNetworkPolicy {
  apiVersion?: string;
  kind?: string;
  metadata: { name: string; namespace?: string };
  /** Absent: a policy that isolates every pod of the namespace. */
  spec?: {
    podSelector?: LabelSelector | null;
    policyTypes?: string[] | null;
    ingress?: { from?: KubernetesNetworkPolicyPeer[] | null; ports?: KubernetesNetworkPolicyPort[] | null }[] | null;
    egress?: { to?: KubernetesNetworkPolicyPeer[] | null; ports?: KubernetesNetworkPolicyPort[] | null }[] | null;
  } | null;
}

/**
 * The directions of a policy, as Kubernetes' API server fills them in: without types, or with an empty list of them,
 * always Ingress, and Egress where there is at least one rule for it.
 *
 * @see https://kubernetes.io/docs/reference/kubernetes-api/policy-resources/network-policy-v1/#NetworkPolicySpec
 */
export function policyTypesOf({
  policyTypes,
  egress,
}: {
  policyTypes?: readonly string[] | null;
  egress?: readonly unknown[] | null;
}): PolicyType[] {
  if (policyTypes?.length) return [...new Set(policyTypes)] as PolicyType[];
  return egress?.length ? ["Ingress", "Egress"] : ["Ingress"];
}

/**
 * Translates a Kubernetes NetworkPolicy. What Kubernetes tolerates and fills in is written out: `null` is as absent as
 * a field that is not there, an empty list of peers or ports is left out, policies without types get theirs, rules of a
 * direction that `policyTypes` lacks are dropped, bits behind a prefix are cleared. Anything else stays as it is and is
 * refused by `compileNetworkPolicies` if it is wrong.
 */
export function networkPolicyFromKubernetes({ metadata, spec: written }: KubernetesNetworkPolicy): NetworkPolicyArgs {
  const spec = written ?? {};
  const policyTypes = policyTypesOf(spec);
  const ingress = (spec.ingress ?? []).map((rule) => translated(rule, "from", rule?.from));
  const egress = (spec.egress ?? []).map((rule) => translated(rule, "to", rule?.to));
  return {
    name: metadata.name,
    ...(metadata.namespace ? { namespace: metadata.namespace } : {}),
    groupSelector: selector(spec.podSelector ?? {}),
    policyTypes,
    ...(policyTypes.includes("Ingress") && ingress.length > 0 ? { ingress } : {}),
    ...(policyTypes.includes("Egress") && egress.length > 0 ? { egress } : {}),
  };
}

/** A rule that is none stays, so that it is refused: Kubernetes would let everything pass by it. */
function translated<K extends "from" | "to">(
  rule: { ports?: KubernetesNetworkPolicyPort[] | null } | null,
  name: K,
  peers: KubernetesNetworkPolicyPeer[] | null | undefined,
): { [_ in K]?: NetworkPolicyPeer[] } & { ports?: NetworkPolicyPort[] } {
  if (!isGiven(rule)) return rule as never;
  return { ...listed(name, peers?.map(peer)), ...listed("ports", rule.ports?.map(port)) };
}

/** A field that is left out when its list is empty. */
function listed<K extends string, T>(name: K, list: T[] | undefined): { [_ in K]?: T[] } {
  return (list === undefined || list.length === 0 ? {} : { [name]: list }) as { [_ in K]?: T[] };
}

/** Peers and ports that are none stay, for the same reason. */
function peer(written: KubernetesNetworkPolicyPeer): NetworkPolicyPeer {
  if (!isGiven(written)) return written;
  const { podSelector, namespaceSelector, ipBlock } = written;
  return {
    ...(podSelector ? { groupSelector: selector(podSelector) } : {}),
    ...(namespaceSelector ? { namespaceSelector: selector(namespaceSelector) } : {}),
    ...(ipBlock ? { ipBlock: block(ipBlock) } : {}),
  };
}

function selector({ matchLabels, matchExpressions, ...others }: LabelSelector): LabelSelector {
  return {
    ...others,
    ...(matchLabels ? { matchLabels } : {}),
    ...(matchExpressions ? { matchExpressions: matchExpressions.map((requirement) => given(requirement)) } : {}),
  };
}

const cleared = (text: string): string =>
  (typeof text === "string" ? parsePrefix(text)?.prefix.text : undefined) ?? text;

function block({ cidr, except }: { cidr: string; except?: string[] | null }): IpBlock {
  return { cidr: cleared(cidr), ...listed("except", except?.map(cleared)) };
}

function port(written: KubernetesNetworkPolicyPort): NetworkPolicyPort {
  if (!isGiven(written)) return written;
  const { protocol, port: number, endPort } = written;
  return {
    ...(isGiven(protocol) ? { protocol: protocol as NetworkPolicyPort["protocol"] } : {}),
    ...(isGiven(number) ? { port: number } : {}),
    ...(isGiven(endPort) ? { endPort } : {}),
  };
}
