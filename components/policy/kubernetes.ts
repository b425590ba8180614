/** From Kubernetes' NetworkPolicy to Palisade's: the same policy, with groups for pods. */
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
  podSelector?: LabelSelector;
  namespaceSelector?: LabelSelector;
  ipBlock?: { cidr: string; except?: string[] | null };
}

export interface KubernetesNetworkPolicyPort {
  protocol?: string;
  port?: number | string;
  endPort?: number;
}

/** An object of `networking.k8s.io/v1`, as `kubectl get -o json` prints it. What is not named here does not matter. */
export interface KubernetesNetworkPolicy {
  apiVersion?: string;
  kind?: string;
  metadata: { name: string; namespace?: string };
  spec: {
    podSelector?: LabelSelector;
    policyTypes?: string[];
    ingress?: { from?: KubernetesNetworkPolicyPeer[] | null; ports?: KubernetesNetworkPolicyPort[] | null }[] | null;
    egress?: { to?: KubernetesNetworkPolicyPeer[] | null; ports?: KubernetesNetworkPolicyPort[] | null }[] | null;
  };
}

/**
 * Translates a Kubernetes NetworkPolicy. What Kubernetes tolerates is written out: an empty list of peers or ports is left out,
 * rules of a direction that `policyTypes` lacks are dropped, bits behind a prefix are cleared. Anything else stays as it is and is
 * refused by `compileNetworkPolicies` if it is wrong.
 */
export function networkPolicyFromKubernetes({ metadata, spec }: KubernetesNetworkPolicy): NetworkPolicyArgs {
  const ingress = (spec.ingress ?? []).map(({ from, ports }) => ({
    ...listed("from", from?.map(peer)),
    ...listed("ports", ports?.map(port)),
  }));
  const egress = (spec.egress ?? []).map(({ to, ports }) => ({
    ...listed("to", to?.map(peer)),
    ...listed("ports", ports?.map(port)),
  }));
  const policyTypes = (spec.policyTypes ?? (egress.length > 0 ? ["Ingress", "Egress"] : ["Ingress"])) as PolicyType[];
  return {
    name: metadata.name,
    ...(metadata.namespace ? { namespace: metadata.namespace } : {}),
    groupSelector: spec.podSelector ?? {},
    policyTypes,
    ...(policyTypes.includes("Ingress") && ingress.length > 0 ? { ingress } : {}),
    ...(policyTypes.includes("Egress") && egress.length > 0 ? { egress } : {}),
  };
}

/** A field that is left out when its list is empty. */
function listed<K extends string, T>(name: K, list: T[] | undefined): { [_ in K]?: T[] } {
  return (list === undefined || list.length === 0 ? {} : { [name]: list }) as { [_ in K]?: T[] };
}

function peer({ podSelector, namespaceSelector, ipBlock }: KubernetesNetworkPolicyPeer): NetworkPolicyPeer {
  return {
    ...(podSelector ? { groupSelector: podSelector } : {}),
    ...(namespaceSelector ? { namespaceSelector } : {}),
    ...(ipBlock ? { ipBlock: block(ipBlock) } : {}),
  };
}

const cleared = (text: string): string => parsePrefix(text)?.prefix.text ?? text;

function block({ cidr, except }: { cidr: string; except?: string[] | null }): IpBlock {
  return { cidr: cleared(cidr), ...listed("except", except?.map(cleared)) };
}

function port({ protocol, port: number, endPort }: KubernetesNetworkPolicyPort): NetworkPolicyPort {
  return {
    ...(protocol === undefined ? {} : { protocol: protocol as NetworkPolicyPort["protocol"] }),
    ...(number === undefined ? {} : { port: number }),
    ...(endPort === undefined ? {} : { endPort }),
  };
}
