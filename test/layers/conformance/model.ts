/**
 * What policies mean for one packet, read off the arguments themselves: no identities, no compiled form, no code of the
 * compiler's.
 */
import { BlockList, isIPv4 } from "node:net";
import type {
  Labels,
  LabelSelector,
  NetworkPolicyPeer,
  NetworkPolicyPort,
  PolicyEndpoint,
  PolicySet,
} from "../../../components/policy/index.js";
import type { Packet } from "./interpreter.js";

type Direction = "ingress" | "egress";

/** A rule of either kind and direction. */
interface AnyRule {
  action?: "Allow" | "Deny" | "Pass";
  from?: NetworkPolicyPeer[];
  to?: NetworkPolicyPeer[];
  ports?: NetworkPolicyPort[];
}

/** One end of a connection. */
interface End {
  address: string;
  endpoint?: PolicyEndpoint;
}

function selects(selector: LabelSelector | undefined, labels: Labels): boolean {
  const wanted = Object.entries(selector?.matchLabels ?? {}).map(([key, value]) => labels[key] === value);
  const required = (selector?.matchExpressions ?? []).map(({ key, operator, values = [] }) => {
    const has = key in labels;
    const among = has && values.includes(labels[key] as string);
    return { In: among, NotIn: !among, Exists: has, DoesNotExist: !has }[operator];
  });
  return [...wanted, ...required].every(Boolean);
}

function within(cidr: string, address: string): boolean {
  const [network = "", length = ""] = cidr.split("/");
  if (isIPv4(network) !== isIPv4(address)) return false;
  const block = new BlockList();
  block.addSubnet(network, Number(length), isIPv4(network) ? "ipv4" : "ipv6");
  return block.check(address, isIPv4(address) ? "ipv4" : "ipv6");
}

/** The verdict of a set of policies on a packet, as `interpreter` gives it. */
export function model(set: PolicySet, hostAddresses: readonly string[]) {
  const labelsOf = (namespace = "default"): Labels => ({
    ...set.namespaces?.find(({ name }) => name === namespace)?.labels,
    "kubernetes.io/metadata.name": namespace,
  });

  const isPeer = (peer: NetworkPolicyPeer, { address, endpoint }: End, own: string | undefined): boolean => {
    const isHost = hostAddresses.includes(address);
    if (peer.ipBlock) {
      const { cidr, except = [] } = peer.ipBlock;
      return !isHost && within(cidr, address) && !except.some((left) => within(left, address));
    }
    if (peer.entities) {
      const holds = { all: true, host: isHost, world: !isHost && endpoint === undefined };
      return peer.entities.some((entity) => holds[entity]);
    }
    if (endpoint === undefined) return false;
    const namespace = endpoint.namespace ?? "default";
    const inNamespace =
      peer.namespaceSelector || own === undefined
        ? selects(peer.namespaceSelector, labelsOf(namespace))
        : namespace === own;
    return inNamespace && selects(peer.groupSelector, endpoint.labels ?? {});
  };

  const isPort = (port: NetworkPolicyPort, packet: Packet, destination: End): boolean => {
    if ((port.protocol ?? "TCP") !== packet.protocol) return false;
    if (packet.protocol === "ICMP" || packet.protocol === "ICMPv6") {
      return (port.icmpType ?? packet.port) === packet.port && (port.icmpCode ?? packet.code) === packet.code;
    }
    if (typeof port.port === "string") {
      return (destination.endpoint?.ports ?? []).some(
        (named) =>
          named.name === port.port && (named.protocol ?? "TCP") === packet.protocol && named.port === packet.port,
      );
    }
    return port.port === undefined || (port.port <= packet.port && packet.port <= (port.endPort ?? port.port));
  };

  const passes = (direction: Direction, subject: End, remote: End, packet: Packet): boolean => {
    const { endpoint } = subject;
    if (endpoint === undefined) return true;
    const namespace = endpoint.namespace ?? "default";
    const destination = direction === "ingress" ? subject : remote;
    const matches = (rule: AnyRule, own: string | undefined): boolean => {
      const peers = rule.from ?? rule.to;
      return (
        (peers?.some((peer) => isPeer(peer, remote, own)) ?? true) &&
        (rule.ports?.some((port) => isPort(port, packet, destination)) ?? true)
      );
    };
    const decisionOfTier = (tier: "Admin" | "Baseline") =>
      (set.clusterNetworkPolicies ?? [])
        .filter((policy) => policy.tier === tier)
        .filter(({ subject: { namespaceSelector, groupSelector } }) => {
          return selects(namespaceSelector, labelsOf(namespace)) && selects(groupSelector, endpoint.labels ?? {});
        })
        .sort((a, b) => a.priority - b.priority || a.name.localeCompare(b.name))
        .flatMap((policy): AnyRule[] => policy[direction] ?? [])
        .find((rule) => matches(rule, undefined))?.action;

    const admin = decisionOfTier("Admin");
    if (admin === "Allow" || admin === "Deny") return admin === "Allow";
    const applied = (set.networkPolicies ?? []).filter(
      (policy) => (policy.namespace ?? "default") === namespace && selects(policy.groupSelector, endpoint.labels ?? {}),
    );
    const matching = (action: "Allow" | "Deny"): boolean =>
      applied
        .filter((policy) => (policy.action ?? "Allow") === action)
        .some((policy) => ((policy[direction] ?? []) as AnyRule[]).some((rule) => matches(rule, namespace)));
    if (matching("Deny")) return false;
    const isolated = applied.some(
      ({ action, policyTypes, egress }) =>
        action !== "Deny" &&
        (policyTypes?.includes(direction === "ingress" ? "Ingress" : "Egress") ??
          (direction === "ingress" || (egress ?? []).length > 0)),
    );
    return isolated ? matching("Allow") : decisionOfTier("Baseline") !== "Deny";
  };

  const endOf = (address: string): End => ({
    address,
    endpoint: set.endpoints.find(({ addresses }) => addresses?.includes(address)),
  });
  return (packet: Packet) => {
    const [from, to] = [endOf(packet.from), endOf(packet.to)];
    return { egress: passes("egress", from, to, packet), ingress: passes("ingress", to, from, packet) };
  };
}
