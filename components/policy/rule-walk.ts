/** Rules of both kinds of policies and both directions, seen in one way. */
import type { NetworkPolicyPeer, NetworkPolicyPort, PolicySet, TierAction } from "./arguments.js";

export interface DirectedRule {
  /** Network policies have theirs on the policy. */
  action?: TierAction;
  /** Absent: every peer. */
  peers?: readonly NetworkPolicyPeer[];
  /** Absent: every protocol and port. */
  ports?: readonly NetworkPolicyPort[];
}

export interface DirectedRules {
  ingress: DirectedRule[];
  egress: DirectedRule[];
}

interface WrittenRule {
  action?: TierAction;
  from?: NetworkPolicyPeer[];
  to?: NetworkPolicyPeer[];
  ports?: NetworkPolicyPort[];
}

/** The rules of one policy. */
export function directedRules(policy: { ingress?: WrittenRule[]; egress?: WrittenRule[] }): DirectedRules {
  return {
    ingress: (policy.ingress ?? []).map(({ action, from, ports }) => ({ action, peers: from, ports })),
    egress: (policy.egress ?? []).map(({ action, to, ports }) => ({ action, peers: to, ports })),
  };
}

/** Every rule of a set of policies. */
export function* eachRule(set: PolicySet): Generator<DirectedRule> {
  for (const policy of [...(set.networkPolicies ?? []), ...(set.clusterNetworkPolicies ?? [])]) {
    const { ingress, egress } = directedRules(policy);
    yield* ingress;
    yield* egress;
  }
}
