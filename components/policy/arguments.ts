/**
 * What a user writes about the network: the arguments of network policies. Names and meaning are those of Kubernetes'
 * NetworkPolicy (networking.k8s.io/v1) and of ClusterNetworkPolicy (policy.networking.k8s.io), where a pod is a
 * container group.
 */

/** Labels: keys and values as in Kubernetes. */
export type Labels = Record<string, string>;

/** One requirement on a label. As in Kubernetes, NotIn and DoesNotExist hold for what lacks the label. */
export interface LabelSelectorRequirement {
  key: string;
  operator: "In" | "NotIn" | "Exists" | "DoesNotExist";
  /** With In and NotIn: at least one. Refused with Exists and DoesNotExist. */
  values?: string[];
}

/** All of its parts have to hold; an empty selector selects everything. */
export interface LabelSelector {
  matchLabels?: Labels;
  matchExpressions?: LabelSelectorRequirement[];
}

/** A range of addresses. */
export interface IpBlock {
  /** IPv4 or IPv6, e.g. `192.0.2.0/24`. Refused when bits of the host part are set. */
  cidr: string;
  /** Ranges inside of `cidr` that are left out. */
  except?: string[];
}

/**
 * `host`: the host's own addresses. `world`: every address that is neither the host's nor a group's. `all`: every peer.
 */
export type Entity = "host" | "world" | "all";

/** The other side of a connection: groups by selectors, or addresses, or entities; exactly one of the three. */
export interface NetworkPolicyPeer {
  /** Groups by their labels. Default with a `namespaceSelector`: every group. */
  groupSelector?: LabelSelector;
  /**
   * Groups by the labels of their namespace. Default: the policy's own namespace, or every one when the policy is a
   * ClusterNetworkPolicy. Each namespace has the label `kubernetes.io/metadata.name`.
   */
  namespaceSelector?: LabelSelector;
  /**
   * Addresses outside, and the groups whose addresses lie in it. A group with two addresses is matched with both when
   * one lies in it. The host's own addresses never match; say `entities: ["host"]`.
   */
  ipBlock?: IpBlock;
  entities?: Entity[];
}

export type Protocol = "TCP" | "UDP" | "SCTP" | "ICMP" | "ICMPv6";

/** What a connection's destination has to be. */
export interface NetworkPolicyPort {
  /** Default: TCP. */
  protocol?: Protocol;
  /** 1 to 65535, or the name of a port of the destination. Default: every port. Refused with ICMP. */
  port?: number | string;
  /** End of a range that starts at `port`, itself included. Needs a number in `port`. */
  endPort?: number;
  /** With ICMP and ICMPv6: 0 to 255. Default: every type. */
  icmpType?: number;
  /** 0 to 255; needs `icmpType`. Default: every code. */
  icmpCode?: number;
}

export interface NetworkPolicyIngressRule {
  /** Default: every peer. An empty list is refused. */
  from?: NetworkPolicyPeer[];
  /** Default: every protocol and port. An empty list is refused. */
  ports?: NetworkPolicyPort[];
}

export interface NetworkPolicyEgressRule {
  /** Default: every peer. An empty list is refused. */
  to?: NetworkPolicyPeer[];
  /** Default: every protocol and port. An empty list is refused. */
  ports?: NetworkPolicyPort[];
}

export type PolicyType = "Ingress" | "Egress";

/**
 * Who may talk with the groups of one namespace. As in Kubernetes a group that a policy selects for a direction is
 * isolated in it: only what some policy allows passes.
 */
export interface NetworkPolicyArgs {
  /** Unique in its namespace. */
  name: string;
  /** Default: default. */
  namespace?: string;
  /** Groups of the namespace to which the policy applies; `{}`: all of them. */
  groupSelector: LabelSelector;
  /** Default, also for an empty list: Ingress, and Egress when there is at least one egress rule, as in Kubernetes. */
  policyTypes?: PolicyType[];
  /**
   * `Allow`: what a rule matches may pass, and the groups are isolated. `Deny`: what a rule matches does not pass
   * whatever other policies allow, and nothing else changes. Default: Allow.
   */
  action?: "Allow" | "Deny";
  ingress?: NetworkPolicyIngressRule[];
  egress?: NetworkPolicyEgressRule[];
}

/** Allow and Deny end the search; Pass goes on to the next tier. */
export type TierAction = "Allow" | "Deny" | "Pass";

export interface ClusterNetworkPolicyIngressRule {
  /** For people only. */
  name?: string;
  action: TierAction;
  /** At least one; `entities: ["all"]` for every peer. */
  from: NetworkPolicyPeer[];
  /** Default: every protocol and port. An empty list is refused. */
  ports?: NetworkPolicyPort[];
}

export interface ClusterNetworkPolicyEgressRule {
  /** For people only. */
  name?: string;
  action: TierAction;
  /** At least one; `entities: ["all"]` for every peer. */
  to: NetworkPolicyPeer[];
  /** Default: every protocol and port. An empty list is refused. */
  ports?: NetworkPolicyPort[];
}

/** Groups of all namespaces; both selectors have to hold, an absent one does. */
export interface ClusterNetworkPolicySubject {
  namespaceSelector?: LabelSelector;
  groupSelector?: LabelSelector;
}

/**
 * The rules of an administrator, in front of network policies (tier Admin) or behind them (tier Baseline: only where no
 * network policy isolates the group). Within a tier the first rule that matches decides, by priority, then by the
 * policy's name, then by the order of rules; where none matches the next tier decides, and after the last one
 * everything passes.
 */
export interface ClusterNetworkPolicyArgs {
  /** Unique. */
  name: string;
  tier: "Admin" | "Baseline";
  /** 0 to 1000; the lower one comes first. */
  priority: number;
  subject: ClusterNetworkPolicySubject;
  ingress?: ClusterNetworkPolicyIngressRule[];
  egress?: ClusterNetworkPolicyEgressRule[];
}

/** A port of a group that policies can name. */
export interface NamedPort {
  name: string;
  /** Default: TCP. */
  protocol?: "TCP" | "UDP" | "SCTP";
  port: number;
}

/** A group as policies see it. */
export interface PolicyEndpoint {
  name: string;
  /** Default: default. */
  namespace?: string;
  labels?: Labels;
  ports?: NamedPort[];
  /** Its addresses, as far as they are known: an `ipBlock` matches a group by these only. */
  addresses?: string[];
}

/** A namespace's labels. A namespace that is not described has none but its name. */
export interface PolicyNamespace {
  name: string;
  labels?: Labels;
}

/** Everything that decides which packet passes. */
export interface PolicySet {
  networkPolicies?: NetworkPolicyArgs[];
  clusterNetworkPolicies?: ClusterNetworkPolicyArgs[];
  endpoints: PolicyEndpoint[];
  namespaces?: PolicyNamespace[];
}
