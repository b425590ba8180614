/**
 * Palisade's network policies as objects of a cluster, by pure functions. What Kubernetes can express becomes a
 * NetworkPolicy. The rest needs Cilium 1.20, which has denial, entities and ICMP in CiliumNetworkPolicy and tiers in
 * ClusterNetworkPolicy of network-policy-api.
 *
 * @see https://docs.cilium.io/en/stable/network/kubernetes/policy/
 */
import { argumentNames } from "../internal/argument-names.js";
import { ArgumentCheck } from "../internal/arguments.js";
import type {
  ClusterNetworkPolicyArgs,
  LabelSelector,
  NetworkPolicyArgs,
  NetworkPolicyPeer,
  NetworkPolicyPort,
  PolicyType,
} from "../policy/arguments.js";
import { reportPolicySet, withoutNothing } from "../policy/check.js";
import { defaultNamespace } from "../policy/identities.js";
import { type KubernetesNetworkPolicy, type KubernetesNetworkPolicyPeer, policyTypesOf } from "../policy/kubernetes.js";

/** Policies for a cluster, whose groups and namespaces it knows itself. */
export interface ClusterPolicies {
  networkPolicies?: NetworkPolicyArgs[];
  clusterNetworkPolicies?: ClusterNetworkPolicyArgs[];
  /**
   * Whether the cluster's network is Cilium 1.20 or newer. Default: false, and what a NetworkPolicy cannot say is
   * refused. Tiers need Cilium's `k8sClusterNetworkPolicy.enabled`, and ranges of addresses that hold groups
   * `policyCIDRMatchMode: pods`.
   */
  cilium?: boolean;
}

const clusterPolicyArguments = argumentNames<ClusterPolicies>({
  networkPolicies: true,
  clusterNetworkPolicies: true,
  cilium: true,
});

/** An object that is one of a policy. */
export interface PolicyObject {
  apiVersion: string;
  kind: string;
  metadata: { name: string; namespace?: string };
  spec: object;
}

/** Rules, peers of a rule and protocols of a rule that a ClusterNetworkPolicy has at most, by its CRD. */
const maximumOfTier = 25;
/** Ports and ICMP types in one list of Cilium's, by its CRD. */
const maximumOfList = 40;

const directions = [
  { field: "ingress", peers: "from", type: "Ingress" },
  { field: "egress", peers: "to", type: "Egress" },
] as const satisfies readonly { field: string; peers: string; type: PolicyType }[];

type Direction = (typeof directions)[number];

/** A rule of either direction and kind of policy. */
interface AnyRule {
  name?: string;
  action?: "Allow" | "Deny" | "Pass";
  from?: NetworkPolicyPeer[];
  to?: NetworkPolicyPeer[];
  ports?: NetworkPolicyPort[];
}

const rulesOf = (policy: NetworkPolicyArgs | ClusterNetworkPolicyArgs, { field }: Direction): AnyRule[] =>
  policy[field] ?? [];

/** Refuses policies that no object of the cluster can express, with each field's path; see {@link policyObjects}. */
export function checkClusterPolicies(check: ArgumentCheck, policies: ClusterPolicies): void {
  check.keys("", policies, clusterPolicyArguments);
  const { networkPolicies, clusterNetworkPolicies } = policies;
  const cilium = policies.cilium ?? false;
  check.field("cilium", cilium, (value) => (typeof value === "boolean" ? undefined : "must be true or false"));
  const before = check.count;
  reportPolicySet(check, { networkPolicies, clusterNetworkPolicies, endpoints: [] });
  // What is no policy at all cannot be looked at more closely.
  if (check.count > before) return;
  checkForCluster(check, withoutNothing({ networkPolicies, clusterNetworkPolicies }), cilium);
}

function checkForCluster(
  check: ArgumentCheck,
  { networkPolicies, clusterNetworkPolicies }: ClusterPolicies,
  cilium: boolean,
): void {
  networkPolicies?.forEach((policy, index) => {
    const reasons = beyondKubernetes(policy);
    for (const [field, reason] of reasons) {
      const path = `networkPolicies[${index}].${field}`;
      if (!cilium) check.add(path, undefined, `${reason}; it needs Cilium: say cilium: true where the cluster has it`);
    }
    if (cilium && reasons.length > 0) checkForCilium(check, `networkPolicies[${index}]`, policy);
  });
  const places = new Map<string, string>();
  clusterNetworkPolicies?.forEach((policy, index) => {
    const path = `clusterNetworkPolicies[${index}]`;
    if (!cilium) {
      check.add(path, undefined, "Kubernetes has no tiers; it needs Cilium: say cilium: true where the cluster has it");
      return;
    }
    checkTier(check, path, policy);
    const place = `${policy.tier} ${policy.priority}`;
    const other = places.get(place);
    if (other !== undefined) {
      const reason = `is that of ${other} too, and a cluster does not say which of the two comes first`;
      check.add(`${path}.priority`, policy.priority, reason);
    }
    places.set(place, path);
  });
}

/** Fields of a policy that Kubernetes' NetworkPolicy does not have, with the reason. */
function beyondKubernetes(policy: NetworkPolicyArgs): [field: string, reason: string][] {
  const found: [string, string][] = [];
  if (policy.action === "Deny") found.push(["action", "Kubernetes' NetworkPolicy has no rules that deny"]);
  for (const direction of directions) {
    rulesOf(policy, direction).forEach((rule, index) => {
      const at = `${direction.field}[${index}]`;
      rule[direction.peers]?.forEach(({ entities }, place) => {
        if (entities) {
          found.push([`${at}.${direction.peers}[${place}].entities`, "Kubernetes' NetworkPolicy has no entities"]);
        }
      });
      rule.ports?.forEach((port, place) => {
        if (isIcmp(port)) found.push([`${at}.ports[${place}].protocol`, "Kubernetes' NetworkPolicy has no ICMP"]);
      });
    });
  }
  return found;
}

function checkForCilium(check: ArgumentCheck, path: string, policy: NetworkPolicyArgs): void {
  for (const direction of directions) {
    rulesOf(policy, direction).forEach((rule, index) => {
      const at = `${path}.${direction.field}[${index}]`;
      rule.ports?.forEach((port, place) => {
        if (!isIcmp(port)) return;
        if (port.icmpType === undefined) {
          check.add(`${at}.ports[${place}].icmpType`, undefined, "is required: Cilium has no rule for every type");
        }
        if (port.icmpCode !== undefined) {
          check.add(`${at}.ports[${place}].icmpCode`, port.icmpCode, "Cilium looks at the type only; leave it out");
        }
      });
      rule[direction.peers]?.forEach(({ entities }, place) => {
        if (policy.action === "Deny" && direction.field === "ingress" && entities?.includes("host")) {
          check.add(
            `${at}.from[${place}].entities`,
            entities,
            "on Kubernetes a node reaches its own pods whatever policies say, for their probes",
          );
        }
      });
    });
  }
}

function checkTier(check: ArgumentCheck, path: string, policy: ClusterNetworkPolicyArgs): void {
  const limited = (at: string, list: unknown[] | undefined) => {
    if ((list?.length ?? 0) > maximumOfTier) {
      check.add(at, undefined, `has ${list!.length} items; a ClusterNetworkPolicy takes ${maximumOfTier}`);
    }
  };
  for (const direction of directions) {
    limited(`${path}.${direction.field}`, policy[direction.field]);
    rulesOf(policy, direction).forEach((rule, index) => {
      const at = `${path}.${direction.field}[${index}]`;
      limited(`${at}.${direction.peers}`, rule[direction.peers]);
      limited(`${at}.ports`, rule.ports);
      rule[direction.peers]?.forEach((peer, place) => {
        const here = `${at}.${direction.peers}[${place}]`;
        if (direction.field === "ingress" && (peer.entities || peer.ipBlock)) {
          const field = peer.entities ? "entities" : "ipBlock";
          check.add(`${here}.${field}`, undefined, "a ClusterNetworkPolicy knows sources by selectors only");
        } else if (peer.entities && !peer.entities.includes("all")) {
          const reason = "a ClusterNetworkPolicy knows all, selectors and ipBlock only";
          check.add(`${here}.entities`, peer.entities, reason);
        }
        if (peer.ipBlock?.except?.length) {
          check.add(
            `${here}.ipBlock.except`,
            peer.ipBlock.except,
            "a ClusterNetworkPolicy has none; list what is left",
          );
        }
      });
      rule.ports?.forEach((port, place) => {
        const here = `${at}.ports[${place}]`;
        if (isIcmp(port)) check.add(`${here}.protocol`, port.protocol, "a ClusterNetworkPolicy has no ICMP");
        if (typeof port.port === "string") {
          const reason = "names of ports have no protocol in a ClusterNetworkPolicy; give the number";
          check.add(`${here}.port`, port.port, reason);
        }
      });
    });
  }
}

/**
 * The objects that say in a cluster what the policies say on a host.
 *
 * @throws ArgumentError with each field that no object of the cluster can express
 */
export function policyObjects(given: ClusterPolicies): PolicyObject[] {
  const check = new ArgumentCheck("network policies");
  checkClusterPolicies(check, given);
  check.refuse();
  const policies = withoutNothing(given);
  return [
    ...(policies.networkPolicies ?? [])
      // A denial without rules denies nothing and isolates nobody; Cilium refuses it.
      .filter(
        (policy) => policy.action !== "Deny" || directions.some((direction) => rulesOf(policy, direction).length > 0),
      )
      .map((policy) => (beyondKubernetes(policy).length === 0 ? toKubernetes(policy) : toCilium(policy))),
    ...(policies.clusterNetworkPolicies ?? []).map(toTier),
  ];
}

function toKubernetes(policy: NetworkPolicyArgs): PolicyObject & KubernetesNetworkPolicy {
  const peers = (list: NetworkPolicyPeer[]): KubernetesNetworkPolicyPeer[] =>
    list.map(({ groupSelector: podSelector, namespaceSelector, ipBlock }) => ({
      ...(podSelector ? { podSelector } : {}),
      ...(namespaceSelector ? { namespaceSelector } : {}),
      ...(ipBlock ? { ipBlock } : {}),
    }));
  // Kubernetes' default is TCP as well, and a name or a range has the same fields.
  const { ingress, egress } = policy;
  return {
    apiVersion: "networking.k8s.io/v1",
    kind: "NetworkPolicy",
    metadata: metadataOf(policy),
    spec: {
      podSelector: policy.groupSelector,
      policyTypes: policyTypesOf(policy),
      ...(ingress
        ? { ingress: ingress.map(({ from, ports }) => ({ ...(from && { from: peers(from) }), ports })) }
        : {}),
      ...(egress ? { egress: egress.map(({ to, ports }) => ({ ...(to && { to: peers(to) }), ports })) } : {}),
    },
  };
}

const metadataOf = ({ name, namespace = defaultNamespace }: NetworkPolicyArgs) => ({ name, namespace });

/** Labels of pods, and among them those that Cilium makes of their namespaces', as its selectors call them. */
const podLabel = (key: string): string => `k8s:${key}`;
const namespaceLabel = (key: string): string => `k8s:io.cilium.k8s.namespace.labels.${key}`;
const inNamespace = podLabel("io.kubernetes.pod.namespace");

function toCilium(policy: NetworkPolicyArgs): PolicyObject {
  const { action = "Allow", namespace = defaultNamespace } = policy;
  const types = policyTypesOf(policy);
  const isolates = (type: PolicyType): boolean => action === "Allow" && types.includes(type);
  const sections = directions.flatMap((direction) => {
    const rules = rulesOf(policy, direction).flatMap((rule) => ciliumRules(rule, direction, namespace));
    // An empty rule allows nothing. Without any rule, Cilium would not restrict the direction.
    if (rules.length === 0 && isolates(direction.type)) rules.push({});
    return rules.length === 0 ? [] : [[`${direction.field}${action === "Deny" ? "Deny" : ""}`, rules] as const];
  });
  return {
    apiVersion: "cilium.io/v2",
    kind: "CiliumNetworkPolicy",
    metadata: metadataOf(policy),
    spec: {
      endpointSelector: ciliumSelector(podLabel, policy.groupSelector),
      enableDefaultDeny: { ingress: isolates("Ingress"), egress: isolates("Egress") },
      ...Object.fromEntries(sections),
    },
  };
}

/** One rule of ours as Cilium's: those have one kind of peers each, and ports or ICMP. */
function ciliumRules({ ports, ...rule }: AnyRule, { peers: side }: Direction, namespace: string): object[] {
  const prefix = side === "from" ? "from" : "to";
  const peers = rule[side];
  const selectors = peers?.filter(({ ipBlock, entities }) => !ipBlock && !entities);
  const blocks = peers?.flatMap(({ ipBlock }) => ipBlock ?? []);
  const entities = peers ? peers.flatMap((peer) => peer.entities ?? []) : ["all"];
  const whom = [
    selectors?.length ? { [`${prefix}Endpoints`]: selectors.map((peer) => ciliumPeer(peer, namespace)) } : [],
    blocks?.length ? { [`${prefix}CIDRSet`]: blocks } : [],
    entities.length ? { [`${prefix}Entities`]: [...new Set(entities)] } : [],
  ].flat();
  const transport = ports?.filter((port) => !isIcmp(port)) ?? [];
  const icmp = ports?.filter(isIcmp) ?? [];
  const what = [
    ports === undefined ? {} : [],
    transport.length ? { toPorts: chunks(transport.map(ciliumPort)).map((list) => ({ ports: list })) } : [],
    icmp.length ? { icmps: chunks(icmp.map(ciliumType)).map((fields) => ({ fields })) } : [],
  ].flat();
  return whom.flatMap((peer) => what.map((content) => ({ ...peer, ...content })));
}

function ciliumPeer({ groupSelector, namespaceSelector }: NetworkPolicyPeer, namespace: string): LabelSelector {
  const group = ciliumSelector(podLabel, groupSelector);
  if (!namespaceSelector) return { ...group, matchLabels: { ...group.matchLabels, [inNamespace]: namespace } };
  const where = ciliumSelector(namespaceLabel, namespaceSelector);
  return {
    matchLabels: { ...group.matchLabels, ...where.matchLabels },
    matchExpressions: [
      ...(group.matchExpressions ?? []),
      ...(where.matchExpressions ?? []),
      // What is no pod has no namespace, and would else satisfy NotIn and DoesNotExist.
      { key: inNamespace, operator: "Exists" },
    ],
  };
}

function ciliumSelector(label: (key: string) => string, selector: LabelSelector = {}): LabelSelector {
  const { matchLabels, matchExpressions } = selector;
  return {
    ...(matchLabels && {
      matchLabels: Object.fromEntries(Object.entries(matchLabels).map(([key, value]) => [label(key), value])),
    }),
    ...(matchExpressions && {
      matchExpressions: matchExpressions.map(({ key, ...rest }) => ({ key: label(key), ...rest })),
    }),
  };
}

const isIcmp = ({ protocol }: NetworkPolicyPort): boolean => protocol === "ICMP" || protocol === "ICMPv6";

/** Port 0 is every port. */
const ciliumPort = ({ protocol = "TCP", port = 0, endPort }: NetworkPolicyPort) => ({
  port: String(port),
  ...(endPort === undefined ? {} : { endPort }),
  protocol,
});

const ciliumType = ({ protocol, icmpType }: NetworkPolicyPort) => ({
  family: protocol === "ICMP" ? "IPv4" : "IPv6",
  type: icmpType,
});

function chunks<T>(list: T[]): T[][] {
  const count = Math.ceil(list.length / maximumOfList);
  return Array.from({ length: count }, (_, index) => list.slice(index * maximumOfList, (index + 1) * maximumOfList));
}

function toTier({ name, tier, priority, subject, ...policy }: ClusterNetworkPolicyArgs): PolicyObject {
  const rules = (direction: Direction) =>
    rulesOf({ name, tier, priority, subject, ...policy }, direction).map((rule) => ({
      ...(rule.name === undefined ? {} : { name: rule.name }),
      action: rule.action === "Allow" ? "Accept" : rule.action,
      [direction.peers]: rule[direction.peers]!.map(tierPeer),
      ...(rule.ports ? { protocols: rule.ports.map(tierProtocol) } : {}),
    }));
  return {
    apiVersion: "policy.networking.k8s.io/v1alpha2",
    kind: "ClusterNetworkPolicy",
    metadata: { name },
    spec: {
      tier,
      priority,
      subject: tierPods(subject),
      ...(policy.ingress?.length ? { ingress: rules(directions[0]) } : {}),
      ...(policy.egress?.length ? { egress: rules(directions[1]) } : {}),
    },
  };
}

function tierPods({
  namespaceSelector = {},
  groupSelector,
}: Pick<NetworkPolicyPeer, "namespaceSelector" | "groupSelector">) {
  return groupSelector === undefined
    ? { namespaces: namespaceSelector }
    : { pods: { namespaceSelector, podSelector: groupSelector } };
}

function tierPeer(peer: NetworkPolicyPeer): object {
  if (peer.entities) return { networks: ["0.0.0.0/0", "::/0"] };
  return peer.ipBlock ? { networks: [peer.ipBlock.cidr] } : tierPods(peer);
}

function tierProtocol({ protocol = "TCP", port, endPort = port as number }: NetworkPolicyPort): object {
  const [start, end] = port === undefined ? [1, 65535] : [port, endPort];
  const destinationPort = start === end ? { number: start } : { range: { start, end } };
  return { [protocol.toLowerCase()]: { destinationPort } };
}
