/** Who peers are: groups with the same labels are one identity, and so is each prefix that a policy names. */
import type { LabelSelector, Labels, NamedPort, PolicySet } from "./arguments.js";
import { type Prefix, PrefixTable, parseAddress, parsePrefix } from "./cidr.js";
import { canonicalJson, firstEndpointIdentity, firstPrefixIdentity, reservedIdentities } from "./compiled.js";
import { eachRule } from "./rule-walk.js";
import { selects } from "./selectors.js";

export const defaultNamespace = "default";

/** The label that every namespace has, with its name. */
export const namespaceNameLabel = "kubernetes.io/metadata.name";

/** A peer or subject that the compiled form has a number for. */
export interface Identity {
  id: number;
  /** Absent: a prefix, or addresses of the host or the world. */
  group?: GroupIdentity;
}

/** What groups of one identity have in common. */
export interface GroupIdentity {
  namespace: string;
  labels: Labels;
  namespaceLabels: Labels;
  /** Ports that a policy names. */
  ports: readonly NamedPort[];
  /** The longest prefixes around their addresses. */
  prefixes: readonly number[];
}

export class Identities {
  readonly all: readonly Identity[];
  /** In the order of their texts. */
  readonly prefixes: PrefixTable;
  private readonly groupCount: number;
  private readonly ofEndpoint = new Map<string, number>();
  private readonly withPrefix = new Map<number, number[]>();
  private readonly inNamespace = new Map<string, number[]>();
  private readonly selected = new Map<string, readonly number[]>();

  constructor(set: PolicySet) {
    this.prefixes = new PrefixTable(namedPrefixes(set));
    const portNames = namedPorts(set);
    const namespaceLabels = new Map((set.namespaces ?? []).map(({ name, labels }) => [name, labels ?? {}]));
    const byText = new Map<string, { group: GroupIdentity; endpoints: string[] }>();
    for (const { name, namespace = defaultNamespace, labels = {}, ports = [], addresses = [] } of set.endpoints) {
      const around = addresses.map((address) => this.prefixes.longest(parseAddress(address) as Prefix));
      const group: GroupIdentity = {
        namespace,
        labels,
        namespaceLabels: { ...namespaceLabels.get(namespace), [namespaceNameLabel]: namespace },
        ports: ports
          .filter((port) => portNames.has(port.name))
          .map((port) => ({ protocol: "TCP" as const, ...port }))
          .sort((a, b) => (a.name < b.name ? -1 : 1)),
        prefixes: [...new Set(around.filter((prefix) => prefix !== undefined))].sort((a, b) => a - b),
      };
      const text = canonicalJson(group);
      const known = byText.get(text) ?? { group, endpoints: [] };
      known.endpoints.push(`${namespace}/${name}`);
      byText.set(text, known);
    }
    const groups = [...byText].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, identity]) => identity);
    this.groupCount = groups.length;
    groups.forEach(({ group, endpoints }, index) => {
      for (const endpoint of endpoints) this.ofEndpoint.set(endpoint, index);
      for (const prefix of group.prefixes) append(this.withPrefix, prefix, index);
      append(this.inNamespace, group.namespace, index);
    });
    const { host, worldIpv4, worldIpv6 } = reservedIdentities;
    this.all = [
      ...groups.map(({ group }, index) => ({ id: firstEndpointIdentity + index, group })),
      ...this.prefixes.prefixes.map((_, index) => ({ id: firstPrefixIdentity + index })),
      ...[host, worldIpv4, worldIpv6].map((id) => ({ id })),
    ];
  }

  /** Place in `all` of an endpoint's identity. */
  of(namespace: string, name: string): number {
    return this.ofEndpoint.get(`${namespace}/${name}`) as number;
  }

  /**
   * Places of the groups that selectors select. @param namespace where no selector of namespaces is given; absent:
   * everywhere
   */
  groups(
    namespace: string | undefined,
    namespaceSelector?: LabelSelector,
    groupSelector: LabelSelector = {},
  ): readonly number[] {
    const key = canonicalJson([namespaceSelector ?? namespace ?? {}, groupSelector]);
    let found = this.selected.get(key);
    if (found === undefined) {
      const candidates =
        namespaceSelector === undefined && namespace !== undefined
          ? (this.inNamespace.get(namespace) ?? [])
          : [...this.inNamespace.values()].flatMap((places) => {
              const { namespaceLabels } = this.groupAt(places[0] as number);
              return selects(namespaceSelector ?? {}, namespaceLabels) ? places : [];
            });
      found = candidates.filter((place) => selects(groupSelector, this.groupAt(place).labels));
      this.selected.set(key, found);
    }
    return found;
  }

  /** Places of the prefixes and groups that lie in a block. */
  block(cidr: Prefix, except: readonly Prefix[]): number[] {
    const prefixes = this.prefixes.inside(cidr, except);
    const groups = new Set(prefixes.flatMap((prefix) => this.withPrefix.get(prefix) ?? []));
    return [...groups, ...prefixes.map((prefix) => this.groupCount + prefix)];
  }

  host(): number[] {
    return [this.all.length - 3];
  }

  /** Every address that is neither the host's nor a group's. */
  world(): number[] {
    const prefixes = this.prefixes.prefixes.map((_, index) => this.groupCount + index);
    return [...prefixes, this.all.length - 2, this.all.length - 1];
  }

  private groupAt(place: number): GroupIdentity {
    return this.all[place]?.group as GroupIdentity;
  }
}

/** Adds to the list that a map has for a key. */
export function append<K>(map: Map<K, number[]>, key: K, value: number): void {
  const list = map.get(key);
  if (list) list.push(value);
  else map.set(key, [value]);
}

function* namedPrefixes(set: PolicySet): Generator<Prefix> {
  for (const { peers } of eachRule(set)) {
    for (const { ipBlock } of peers ?? []) {
      if (ipBlock === undefined) continue;
      for (const text of [ipBlock.cidr, ...(ipBlock.except ?? [])]) yield parsedPrefix(text);
    }
  }
}

/** A prefix that was checked. */
export const parsedPrefix = (text: string): Prefix => (parsePrefix(text) as { prefix: Prefix }).prefix;

function namedPorts(set: PolicySet): ReadonlySet<string> {
  const names = new Set<string>();
  for (const { ports } of eachRule(set)) {
    for (const { port } of ports ?? []) if (typeof port === "string") names.add(port);
  }
  return names;
}
