/**
 * The compiler: from policies and labels to the compiled form. Pure, and independent of the order of what it is given.
 */
import type {
  ClusterNetworkPolicyArgs,
  NetworkPolicyArgs,
  NetworkPolicyPeer,
  NetworkPolicyPort,
  PolicySet,
} from "./arguments.js";
import { checkPolicySet, withoutNothing } from "./check.js";
import {
  canonicalJson,
  type CompiledDirection,
  type CompiledPolicy,
  type CompiledRule,
  firstPrefixIdentity,
  sealed,
} from "./compiled.js";
import { policyTypesOf } from "./kubernetes.js";
import { append, defaultNamespace, Identities, parsedPrefix } from "./identities.js";
import { type DirectedRule, directedRules, type DirectedRules } from "./rule-walk.js";
import { commonRules, compareRules, peerRules } from "./rules.js";
import { type Decision, decide, everyPlace, type Range, type Verdicts } from "./verdicts.js";

/**
 * Compiles policies for the groups that they are about.
 *
 * The result depends only on the meaning of the policies: their order, and how they are split into rules and policies,
 * changes nothing. It also contains each group that no policy selects, with `enforce: false`.
 *
 * @throws ArgumentError with every wrong field, its path, value and reason
 */
export function compileNetworkPolicies(set: PolicySet): CompiledPolicy {
  checkPolicySet(set);
  return new Compiler(withoutNothing(set)).compile();
}

type Direction = "ingress" | "egress";

/** A rule whose peers have become places in the list of identities. */
interface ResolvedRule {
  tier: Decision["tier"];
  action: Decision["action"];
  /** Absent: every peer. */
  peers?: readonly number[];
  ports?: readonly NetworkPolicyPort[];
}

interface ResolvedPolicy {
  rules: readonly ResolvedRule[];
  isolates: boolean;
  /** Whether a port is given by name, so that the destination decides which it is. */
  namesPorts: boolean;
}

const unenforced: CompiledDirection = { enforce: false, rules: [] };

class Compiler {
  private readonly identities: Identities;
  /** For each identity the policies that apply to it, in the order in which they count. */
  private readonly applied: Record<Direction, ResolvedPolicy[][]>;
  /** Identities to which the same policies apply have the same rules. */
  private readonly done = new Map<string, CompiledDirection>();
  private readonly numbers = new Map<ResolvedPolicy, number>();
  /** Peers as they are written. Equal texts are the same list, and different lists make different rules. */
  private readonly resolved = new Map<string, readonly number[]>();

  constructor(private readonly set: PolicySet) {
    this.identities = new Identities(set);
    const none = (): ResolvedPolicy[][] => this.identities.all.map(() => []);
    this.applied = { ingress: none(), egress: none() };
    const inTier = (tier: ClusterNetworkPolicyArgs["tier"]): ClusterNetworkPolicyArgs[] =>
      (set.clusterNetworkPolicies ?? [])
        .filter((policy) => policy.tier === tier)
        .sort((a, b) => a.priority - b.priority || (a.name < b.name ? -1 : 1));
    for (const policy of inTier("Admin")) this.addClusterPolicy(policy, "admin");
    for (const policy of set.networkPolicies ?? []) this.addNetworkPolicy(policy);
    for (const policy of inTier("Baseline")) this.addClusterPolicy(policy, "baseline");
  }

  compile(): CompiledPolicy {
    const endpoints = this.set.endpoints.map(({ namespace = defaultNamespace, name }) => {
      const place = this.identities.of(namespace, name);
      return {
        name: `${namespace}/${name}`,
        identity: this.identities.all[place]?.id as number,
        ingress: this.direction("ingress", place),
        egress: this.direction("egress", place),
      };
    });
    return sealed({
      version: 1,
      identities: this.identities.prefixes.prefixes.map(({ text }, index) => ({
        id: firstPrefixIdentity + index,
        cidr: text,
      })),
      endpoints: endpoints.sort((a, b) => (a.name < b.name ? -1 : 1)),
    });
  }

  private addClusterPolicy(policy: ClusterNetworkPolicyArgs, tier: "admin" | "baseline"): void {
    const { namespaceSelector, groupSelector } = policy.subject;
    const resolve = ({ action = "Allow", peers, ports }: DirectedRule): ResolvedRule => ({
      tier,
      action,
      peers: this.peers(peers, undefined),
      ports,
    });
    this.add(directedRules(policy), resolve, this.identities.groups(undefined, namespaceSelector, groupSelector), {
      ingress: false,
      egress: false,
    });
  }

  private addNetworkPolicy(policy: NetworkPolicyArgs): void {
    const { namespace = defaultNamespace, action = "Allow", groupSelector } = policy;
    const resolve = ({ peers, ports }: DirectedRule): ResolvedRule => ({
      tier: action === "Allow" ? "allow" : "deny",
      action,
      peers: this.peers(peers, namespace),
      ports,
    });
    const types = policyTypesOf(policy);
    this.add(directedRules(policy), resolve, this.identities.groups(namespace, undefined, groupSelector), {
      ingress: action === "Allow" && types.includes("Ingress"),
      egress: action === "Allow" && types.includes("Egress"),
    });
  }

  private add(
    written: DirectedRules,
    resolve: (rule: DirectedRule) => ResolvedRule,
    subjects: readonly number[],
    isolates: Record<Direction, boolean>,
  ): void {
    for (const direction of ["ingress", "egress"] as const) {
      if (subjects.length === 0 || (written[direction].length === 0 && !isolates[direction])) continue;
      const rules = written[direction].map(resolve);
      const namesPorts = rules.some(({ ports }) => ports?.some(({ port }) => typeof port === "string"));
      const policy = { rules, isolates: isolates[direction], namesPorts };
      this.numbers.set(policy, this.numbers.size);
      for (const subject of subjects) this.applied[direction][subject]?.push(policy);
    }
  }

  /** @param namespace of groups that are selected without their namespace; absent: every one */
  private peers(peers: DirectedRule["peers"], namespace: string | undefined): readonly number[] | undefined {
    if (peers === undefined || peers.some(({ entities }) => entities?.includes("all"))) return undefined;
    const key = canonicalJson([namespace, peers]);
    let found = this.resolved.get(key);
    if (found === undefined) {
      found = [...new Set(peers.flatMap((peer) => this.peer(peer, namespace)))];
      this.resolved.set(key, found);
    }
    return found;
  }

  private peer(
    { ipBlock, entities, ...selectors }: NetworkPolicyPeer,
    namespace: string | undefined,
  ): readonly number[] {
    if (ipBlock) return this.identities.block(parsedPrefix(ipBlock.cidr), (ipBlock.except ?? []).map(parsedPrefix));
    if (entities) {
      return entities.flatMap((entity) => (entity === "host" ? this.identities.host() : this.identities.world()));
    }
    return this.identities.groups(namespace, selectors.namespaceSelector, selectors.groupSelector);
  }

  private direction(direction: Direction, subject: number): CompiledDirection {
    const policies = this.applied[direction][subject] ?? [];
    if (policies.length === 0) return unenforced;
    // Where ports are named, groups with other ports under these names differ.
    const own = direction === "ingress" && policies.some(({ namesPorts }) => namesPorts) ? this.portsOf(subject) : "";
    const key = `${direction} ${own} ${policies.map((policy) => this.numbers.get(policy)).join(" ")}`;
    let compiled = this.done.get(key);
    if (compiled === undefined) {
      compiled = { enforce: true, rules: this.rules(policies, direction, subject) };
      this.done.set(key, compiled);
    }
    return compiled;
  }

  private rules(policies: readonly ResolvedPolicy[], direction: Direction, subject: number): CompiledRule[] {
    const rules = policies.flatMap((policy) => policy.rules);
    const isolated = policies.some(({ isolates }) => isolates);
    const forAll: number[] = [];
    const forPeers = new Map<readonly number[], number[]>();
    rules.forEach(({ peers }, index) => (peers === undefined ? forAll.push(index) : append(forPeers, peers, index)));
    const lists = [...forPeers.values()];
    const listsOfPeer = new Map<number, number[]>();
    [...forPeers.keys()].forEach((peers, list) => peers.forEach((peer) => append(listsOfPeer, peer, list)));
    const namesPorts = direction === "egress" && policies.some((policy) => policy.namesPorts);
    if (namesPorts && forAll.length > 0) {
      // A rule for every peer that names a port means another port with each group that has one of this name.
      this.identities.all.forEach(({ group }, peer) => {
        if (group !== undefined && group.ports.length > 0 && !listsOfPeer.has(peer)) listsOfPeer.set(peer, []);
      });
    }
    const verdicts = (indices: readonly number[], destination: number | undefined): Verdicts =>
      decide(
        indices.map((index) => {
          const { tier, action, ports } = rules[index] as ResolvedRule;
          return { tier, action, ranges: this.ranges(ports, destination) };
        }),
        isolated,
      );
    const inward = direction === "ingress" ? subject : undefined;
    const common = verdicts(forAll, inward);
    const compiled = commonRules(common);
    const known = new Map<string, Verdicts>();
    for (const [peer, places] of listsOfPeer) {
      // Peers to whom the same rules apply have the same verdicts, unless these depend on the peer's own ports.
      const key = `${namesPorts ? this.portsOf(peer) : ""} ${places.join(" ")}`;
      let found = known.get(key);
      if (found === undefined) {
        const indices = [...forAll, ...places.flatMap((place) => lists[place] ?? [])].sort((a, b) => a - b);
        found = verdicts(indices, inward ?? peer);
        known.set(key, found);
      }
      compiled.push(...peerRules(found, common, this.identities.all[peer]?.id as number));
    }
    return compiled.sort(compareRules);
  }

  /** The ports of an identity that policies name, as a text. */
  private portsOf(place: number): string {
    return canonicalJson(this.identities.all[place]?.group?.ports ?? []);
  }

  private ranges(ports: readonly NetworkPolicyPort[] | undefined, destination: number | undefined): Range[] {
    if (ports === undefined) return [{ protocol: "any", ...everyPlace }];
    const named = destination === undefined ? [] : (this.identities.all[destination]?.group?.ports ?? []);
    return ports.flatMap(({ protocol = "TCP", port, endPort, icmpType, icmpCode }): Range[] => {
      if (protocol === "ICMP" || protocol === "ICMPv6") {
        if (icmpType === undefined) return [{ protocol, ...everyPlace }];
        const first = 256 * icmpType;
        return [{ protocol, start: first + (icmpCode ?? 0), end: first + (icmpCode ?? 255) }];
      }
      if (port === undefined) return [{ protocol, ...everyPlace }];
      if (typeof port === "number") return [{ protocol, start: port, end: endPort ?? port }];
      return named
        .filter((candidate) => candidate.name === port && candidate.protocol === protocol)
        .map((found) => ({ protocol, start: found.port, end: found.port }));
    });
  }
}
