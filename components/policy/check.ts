/** What is refused of policies, groups and namespaces. Complete: what passes here compiles. */
import { ArgumentCheck, isGiven, type Rule, rules } from "../internal/arguments.js";
import type {
  LabelSelector,
  LabelSelectorRequirement,
  NetworkPolicyPeer,
  NetworkPolicyPort,
  PolicySet,
} from "./arguments.js";
import { contains, parseAddress, parsePrefix } from "./cidr.js";
import { defaultNamespace, namespaceNameLabel } from "./identities.js";

/** @throws ArgumentError with everything that is wrong */
export function checkPolicySet(set: PolicySet): void {
  const check = new ArgumentCheck("network policies");
  reportPolicySet(check, set);
  check.refuse();
}

/**
 * Stands for an output that has no value. It is refused wherever the default lets more pass than a value would, because
 * an output in a program is meant to have a value.
 */
export const lateNothing = Symbol("an output without a value");

/** A set without what is not given, after it was checked. */
export function withoutNothing<T>(value: T): T {
  if (Array.isArray(value)) return value.map(withoutNothing) as T;
  if (typeof value !== "object" || value === null) return value;
  const entries = Object.entries(value).filter(([, content]) => isGiven(content) && content !== lateNothing);
  return Object.fromEntries(entries.map(([key, content]) => [key, withoutNothing(content)])) as T;
}

/** Adds everything that is wrong to a check. */
export function reportPolicySet(check: ArgumentCheck, set: PolicySet): void {
  new Checks(check).set(set);
}

const labelName = /^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$/;
const subdomain = /^[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*$/;
const isSubdomain = (text: string): boolean => text.length <= 253 && subdomain.test(text);

const isLabelKey = (key: unknown): boolean => {
  if (typeof key !== "string") return false;
  const parts = key.split("/");
  return parts.length <= 2 && labelName.test(parts.at(-1) ?? "") && (parts.length === 1 || isSubdomain(parts[0] ?? ""));
};

const keyReason =
  "must be a label's key: a name of at most 63 letters, digits, '-', '_' and '.', and before it a DNS name and '/' at will";

const labelValue: Rule<unknown> = (value) =>
  value === "" || (typeof value === "string" && labelName.test(value))
    ? undefined
    : "must be a label's value: at most 63 letters, digits, '-', '_' and '.', beginning and ending with a letter or digit";

const policyName: Rule<unknown> = (value) =>
  typeof value === "string" && isSubdomain(value) ? undefined : "must be a DNS name: a to z, 0 to 9, '-' and '.'";

/** RFC 6335, section 5.1. */
const portName: Rule<unknown> = (value) =>
  typeof value === "string" && /^(?=.{1,15}$)(?=.*[a-z])[a-z0-9]+(-[a-z0-9]+)*$/.test(value)
    ? undefined
    : "must be a port's name: at most 15 of a to z, 0 to 9 and '-', at least one letter, '-' not at the ends nor doubled";

const prefix: Rule<unknown> = (value) => {
  const parsed = typeof value === "string" ? parsePrefix(value) : undefined;
  if (parsed === undefined) return "must be a range of IPv4 or IPv6 addresses, e.g. 192.0.2.0/24";
  return parsed.hostBits ? `has bits set behind the prefix; write ${parsed.prefix.text}` : undefined;
};

const transportProtocols = ["TCP", "UDP", "SCTP"];
const icmpProtocols = ["ICMP", "ICMPv6"];

type Bag = Record<string, unknown>;

interface ListKind {
  /** Default: true. False where an empty list would mean everything. */
  mayBeEmpty?: boolean;
  /** Whether the list narrows what a policy lets pass. Default: false. */
  narrows?: boolean;
}
const refusesEmpty: ListKind = { mayBeEmpty: false };
const narrows: ListKind = { mayBeEmpty: false, narrows: true };

const isNothing = (value: unknown): boolean => value === lateNothing;

class Checks {
  constructor(private readonly check: ArgumentCheck) {}

  set(set: PolicySet): void {
    if (!this.object("", set, ["networkPolicies", "clusterNetworkPolicies", "endpoints", "namespaces"])) return;
    this.check.require("endpoints", set.endpoints);
    this.named("networkPolicies", set.networkPolicies, true, (path, policy) => this.networkPolicy(path, policy));
    this.named("clusterNetworkPolicies", set.clusterNetworkPolicies, false, (path, policy) =>
      this.clusterNetworkPolicy(path, policy),
    );
    this.named("namespaces", set.namespaces, false, (path, namespace) => this.namespace(path, namespace));
    const owners = new Map<string, string>();
    this.named("endpoints", set.endpoints, true, (path, endpoint) => this.endpoint(path, endpoint, owners));
  }

  private networkPolicy(path: string, policy: Bag): void {
    const fields = ["name", "namespace", "groupSelector", "policyTypes", "action", "ingress", "egress"];
    if (!this.object(path, policy, fields)) return;
    this.rule(`${path}.name`, policy.name, policyName, true);
    this.rule(`${path}.namespace`, policy.namespace, rules.dnsLabel);
    this.rule(`${path}.action`, policy.action, rules.oneOf("Allow", "Deny"));
    this.selector(`${path}.groupSelector`, policy.groupSelector, true);
    this.list(`${path}.policyTypes`, policy.policyTypes, refusesEmpty, (at, type) =>
      this.rule(at, type, rules.oneOf("Ingress", "Egress"), true),
    );
    const types = Array.isArray(policy.policyTypes) ? (policy.policyTypes as unknown[]) : undefined;
    if (types !== undefined && new Set(types).size < types.length) {
      this.check.add(`${path}.policyTypes`, types, "names a direction twice");
    }
    for (const [field, type, peers] of directions) {
      this.list(`${path}.${field}`, policy[field], {}, (at, rule: Bag) => this.policyRule(at, rule, peers));
      if (types !== undefined && !types.includes(type) && Array.isArray(policy[field]) && policy[field].length > 0) {
        this.check.add(`${path}.${field}`, undefined, `would have no effect: policyTypes lacks ${type}`);
      }
    }
  }

  private clusterNetworkPolicy(path: string, policy: Bag): void {
    if (!this.object(path, policy, ["name", "tier", "priority", "subject", "ingress", "egress"])) return;
    this.rule(`${path}.name`, policy.name, policyName, true);
    this.rule(`${path}.tier`, policy.tier, rules.oneOf("Admin", "Baseline"), true);
    this.rule(`${path}.priority`, policy.priority, rules.integer(0, 1000), true);
    const subject = `${path}.subject`;
    this.check.require(subject, policy.subject);
    const selectors = policy.subject as Bag | undefined;
    if (isGiven(selectors) && this.object(subject, selectors, ["namespaceSelector", "groupSelector"])) {
      this.selector(`${subject}.namespaceSelector`, selectors.namespaceSelector);
      this.selector(`${subject}.groupSelector`, selectors.groupSelector);
    }
    for (const [field, , peers] of directions) {
      this.list(`${path}.${field}`, policy[field], {}, (at, rule: Bag) => this.tierRule(at, rule, peers));
    }
  }

  private policyRule(path: string, rule: Bag, peers: "from" | "to"): void {
    if (this.object(path, rule, [peers, "ports"])) this.match(path, rule, peers);
  }

  private tierRule(path: string, rule: Bag, peers: "from" | "to"): void {
    if (!this.object(path, rule, ["name", "action", peers, "ports"])) return;
    this.rule(`${path}.name`, rule.name, rules.text);
    this.rule(`${path}.action`, rule.action, rules.oneOf("Allow", "Deny", "Pass"), true);
    this.check.require(`${path}.${peers}`, rule[peers]);
    this.match(path, rule, peers);
  }

  private match(path: string, rule: Bag, peers: "from" | "to"): void {
    this.list(`${path}.${peers}`, rule[peers], narrows, (at, peer: NetworkPolicyPeer) => this.peer(at, peer));
    this.list(`${path}.ports`, rule.ports, narrows, (at, port: NetworkPolicyPort) => this.port(at, port));
  }

  private peer(path: string, peer: NetworkPolicyPeer): void {
    if (!this.object(path, peer, ["groupSelector", "namespaceSelector", "ipBlock", "entities"])) return;
    const kinds = [peer.groupSelector ?? peer.namespaceSelector, peer.ipBlock, peer.entities];
    if (kinds.filter(isGiven).length !== 1) {
      this.check.add(path, undefined, "must have selectors of groups, or an ipBlock, or entities: exactly one of them");
    }
    this.selector(`${path}.groupSelector`, peer.groupSelector);
    this.selector(`${path}.namespaceSelector`, peer.namespaceSelector);
    this.list(`${path}.entities`, peer.entities, narrows, (at, entity) =>
      this.rule(at, entity, rules.oneOf("host", "world", "all"), true),
    );
    const block = peer.ipBlock;
    if (this.absent(`${path}.ipBlock`, block, true)) return;
    if (block === undefined || !this.object(`${path}.ipBlock`, block, ["cidr", "except"])) return;
    this.rule(`${path}.ipBlock.cidr`, block.cidr, prefix, true);
    const outer = typeof block.cidr === "string" ? parsePrefix(block.cidr) : undefined;
    this.list(`${path}.ipBlock.except`, block.except, { narrows: true }, (at, text) => {
      this.rule(at, text, prefix, true);
      const inner = typeof text === "string" ? parsePrefix(text) : undefined;
      if (!outer || !inner || inner.hostBits) return;
      if (!contains(outer.prefix, inner.prefix) || inner.prefix.length === outer.prefix.length) {
        this.check.add(at, text, `must lie inside of ${block.cidr} and be smaller`);
      }
    });
  }

  private port(path: string, port: NetworkPolicyPort): void {
    if (!this.object(path, port, ["protocol", "port", "endPort", "icmpType", "icmpCode"])) return;
    const protocol = isGiven(port.protocol) && !isNothing(port.protocol) ? port.protocol : "TCP";
    this.absent(`${path}.protocol`, port.protocol, false);
    for (const field of ["port", "icmpType", "icmpCode"] as const) {
      if (this.absent(`${path}.${field}`, port[field], true) && port[field] !== undefined) return;
    }
    this.rule(`${path}.protocol`, protocol, rules.oneOf(...transportProtocols, ...icmpProtocols));
    const icmp = icmpProtocols.includes(protocol);
    const foreign = icmp ? (["port", "endPort"] as const) : (["icmpType", "icmpCode"] as const);
    for (const field of foreign) {
      if (isGiven(port[field])) {
        const reason = icmp
          ? `${protocol} has no ports; use icmpType and icmpCode`
          : `${protocol} has no types; use port`;
        this.check.add(`${path}.${field}`, port[field], reason);
      }
    }
    if (icmp) {
      this.rule(`${path}.icmpType`, port.icmpType, rules.integer(0, 255));
      this.rule(`${path}.icmpCode`, port.icmpCode, rules.integer(0, 255));
      if (isGiven(port.icmpCode) && !isGiven(port.icmpType)) {
        this.check.add(`${path}.icmpCode`, port.icmpCode, "needs icmpType: a code means something with its type only");
      }
      return;
    }
    if (typeof port.port === "string") this.rule(`${path}.port`, port.port, portName);
    else this.rule(`${path}.port`, port.port, rules.integer(1, 65535));
    if (this.absent(`${path}.endPort`, port.endPort, false) || port.endPort === undefined) return;
    this.rule(`${path}.endPort`, port.endPort, rules.integer(1, 65535));
    if (typeof port.port !== "number") {
      this.check.add(`${path}.endPort`, port.endPort, "needs a number in port, where the range starts");
    } else if (port.endPort < port.port) {
      this.check.add(`${path}.endPort`, port.endPort, `must not be less than port, which is ${port.port}`);
    }
  }

  private namespace(path: string, namespace: Bag): void {
    if (!this.object(path, namespace, ["name", "labels"])) return;
    this.rule(`${path}.name`, namespace.name, rules.dnsLabel, true);
    this.labels(`${path}.labels`, namespace.labels);
    const named = (namespace.labels as Bag | undefined)?.[namespaceNameLabel];
    if (named !== undefined && named !== namespace.name) {
      this.check.add(`${path}.labels["${namespaceNameLabel}"]`, named, "must be the namespace's name; leave it out");
    }
  }

  private endpoint(path: string, endpoint: Bag, owners: Map<string, string>): void {
    if (!this.object(path, endpoint, ["name", "namespace", "labels", "ports", "addresses"])) return;
    this.rule(`${path}.name`, endpoint.name, rules.dnsLabel, true);
    this.rule(`${path}.namespace`, endpoint.namespace, rules.dnsLabel);
    this.labels(`${path}.labels`, endpoint.labels);
    const names = new Set<unknown>();
    this.list(`${path}.ports`, endpoint.ports, {}, (at, port: Bag) => {
      if (!this.object(at, port, ["name", "protocol", "port"])) return;
      this.rule(`${at}.name`, port.name, portName, true);
      this.rule(`${at}.protocol`, port.protocol, rules.oneOf(...transportProtocols));
      this.rule(`${at}.port`, port.port, rules.integer(1, 65535), true);
      if (names.has(port.name)) this.check.add(`${at}.name`, port.name, "is the name of another port of this group");
      names.add(port.name);
    });
    this.list(`${path}.addresses`, endpoint.addresses, {}, (at, text) => {
      const address = typeof text === "string" ? parseAddress(text) : undefined;
      if (address === undefined) return this.check.add(at, text, "must be an IPv4 or IPv6 address");
      const owner = owners.get(address.text);
      if (owner !== undefined) this.check.add(at, text, `is the address of ${owner} already; an address has one owner`);
      owners.set(address.text, path);
    });
  }

  private selector(path: string, selector: unknown, required = false): void {
    if (required && !isGiven(selector)) return this.check.require(path, selector);
    if (this.absent(path, selector, true)) return;
    if (!this.object(path, selector, ["matchLabels", "matchExpressions"])) return;
    const { matchLabels, matchExpressions } = selector as LabelSelector;
    this.labels(`${path}.matchLabels`, matchLabels, true);
    this.list(
      `${path}.matchExpressions`,
      matchExpressions,
      { narrows: true },
      (at, requirement: LabelSelectorRequirement) => {
        if (!this.object(at, requirement, ["key", "operator", "values"])) return;
        const { key, operator, values } = requirement;
        this.rule(`${at}.key`, key, (value) => (isLabelKey(value) ? undefined : keyReason), true);
        this.rule(`${at}.operator`, operator, rules.oneOf("In", "NotIn", "Exists", "DoesNotExist"), true);
        this.list(`${at}.values`, values, {}, (place, value) => this.rule(place, value, labelValue, true));
        const empty = !Array.isArray(values) || values.length === 0;
        if ((operator === "In" || operator === "NotIn") && empty) {
          this.check.add(`${at}.values`, values, `must not be empty with ${operator}`);
        } else if ((operator === "Exists" || operator === "DoesNotExist") && !empty) {
          this.check.add(`${at}.values`, values, `means nothing with ${operator}; leave it out`);
        }
      },
    );
  }

  private labels(path: string, labels: unknown, narrows = false): void {
    if (this.absent(path, labels, narrows) || !this.object(path, labels)) return;
    for (const [key, value] of Object.entries(labels as Bag)) {
      if (!isLabelKey(key)) this.check.add(`${path}["${key}"]`, key, keyReason);
      this.rule(`${path}["${key}"]`, value, labelValue, true);
    }
  }

  /** A list whose items have distinct names, or distinct pairs of name and namespace. */
  private named(path: string, list: unknown, namespaced: boolean, each: (path: string, item: Bag) => void): void {
    const known = new Map<string, string>();
    this.list(path, list, {}, (at, item: Bag) => {
      each(at, item);
      if (typeof item !== "object" || item === null || typeof item.name !== "string") return;
      const key = namespaced ? `${String(item.namespace ?? defaultNamespace)}/${item.name}` : item.name;
      const other = known.get(key);
      if (other !== undefined) this.check.add(`${at}.name`, item.name, `is the name of ${other} too; names are unique`);
      known.set(key, at);
    });
  }

  /**
   * Each item of a list. An empty one is refused where it would mean everything: lists are computed, and one that
   * became empty by mistake would open what it should close.
   */
  private list<T>(path: string, list: unknown, kind: ListKind, each: (path: string, item: T) => void): void {
    if (this.absent(path, list, kind.narrows === true)) return;
    if (!Array.isArray(list)) return this.check.add(path, list, "must be a list");
    if (list.length === 0 && kind.mayBeEmpty === false) {
      this.check.add(path, list, "must not be empty; leave it out where everything is meant");
    }
    list.forEach((item, index) => each(`${path}[${index}]`, item as T));
  }

  /**
   * Whether nothing was given.
   * @param narrows whether the value would narrow what a policy lets pass: then `null` is refused too, as it opens what
   * it should close
   */
  private absent(path: string, value: unknown, narrows: boolean): boolean {
    if (isGiven(value) && !isNothing(value)) return false;
    if (isNothing(value))
      this.check.add(path, undefined, "is an output without a value; leave it out where the default is meant");
    else if (value === null && narrows) {
      this.check.add(path, value, "must not be null; leave it out where everything is meant");
    }
    return true;
  }

  /** Whether a value is an object; with `fields` no others may be in it. */
  private object(path: string, value: unknown, fields?: readonly string[]): boolean {
    if (typeof value !== "object" || value === null || Array.isArray(value)) {
      this.check.add(path, value, "must be an object");
      return false;
    }
    if (fields) this.check.keys(path, value, fields);
    return true;
  }

  private rule<T>(path: string, value: unknown, rule: Rule<T>, required = false): void {
    if (required && !isGiven(value)) return this.check.require(path, value);
    if (this.absent(path, value, false)) return;
    const reason = rule(value as T);
    if (reason) this.check.add(path, value, reason);
  }
}

const directions = [
  ["ingress", "Ingress", "from"],
  ["egress", "Egress", "to"],
] as const;
