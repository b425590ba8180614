/**
 * What a compiled policy says, read literally: every rule is looked at, as the format is described in
 * docs/decisions/0013. It shares no code with the compiler, so that a mistake is not made twice.
 */
import { BlockList, isIPv4 } from "node:net";
import type { CompiledPolicy, CompiledRule } from "../../../components/policy/index.js";

export interface Packet {
  /** Addresses; an endpoint's, or any other. */
  from: string;
  to: string;
  protocol: "TCP" | "UDP" | "SCTP" | "ICMP" | "ICMPv6" | "other";
  /** Port of the destination. For ICMP the type. */
  port: number;
  /** ICMP only. */
  code?: number;
}

const family = (address: string): "ipv4" | "ipv6" => (isIPv4(address) ? "ipv4" : "ipv6");

/** @param addresses whose address each endpoint's is, by the name that the compiled form has for it */
export function interpreter(policy: CompiledPolicy, addresses: Map<string, string>, hostAddresses: string[] = []) {
  const endpoints = new Map(policy.endpoints.map((endpoint) => [endpoint.name, endpoint]));
  const prefixes = policy.identities.map(({ id, cidr }) => {
    const [network = "", length = ""] = cidr.split("/");
    const block = new BlockList();
    block.addSubnet(network, Number(length), family(network));
    return {
      id,
      length: Number(length),
      contains: (address: string) => family(address) === family(network) && block.check(address, family(address)),
    };
  });
  const known = new Map<string, number>();

  const search = (address: string): number => {
    const endpoint = endpoints.get(addresses.get(address) ?? "");
    if (endpoint) return endpoint.identity;
    if (hostAddresses.includes(address)) return 1;
    const around = prefixes.filter((prefix) => prefix.contains(address)).sort((a, b) => b.length - a.length);
    return around[0]?.id ?? (isIPv4(address) ? 2 : 3);
  };
  const identityOf = (address: string): number => {
    const identity = known.get(address) ?? search(address);
    known.set(address, identity);
    return identity;
  };

  const matches = (rule: CompiledRule, remote: number, packet: Packet): boolean =>
    (rule.identity === 0 || rule.identity === remote) &&
    (rule.protocol === "any" || rule.protocol === packet.protocol) &&
    // A rule for any protocol has every port; one for ICMP every type or a single one.
    (rule.protocol === "any" || (rule.portStart <= packet.port && packet.port <= rule.portEnd)) &&
    (rule.code === undefined || rule.code === packet.code);

  const direction = (own: string, which: "ingress" | "egress", remote: string, packet: Packet): boolean => {
    const endpoint = endpoints.get(addresses.get(own) ?? "");
    // What is outside has no policy here.
    if (endpoint === undefined || !endpoint[which].enforce) return true;
    const identity = identityOf(remote);
    let found: CompiledRule | undefined;
    for (const rule of endpoint[which].rules) {
      if (!matches(rule, identity, packet)) continue;
      if (found && found.precedence > rule.precedence) continue;
      if (found?.precedence === rule.precedence && found.action === "deny") continue;
      found = rule;
    }
    return found?.action === "allow";
  };

  return {
    identityOf,
    /** Whether the source may send it, and whether the destination may receive it; it passes when both hold. */
    verdict: (packet: Packet) => ({
      egress: direction(packet.from, "egress", packet.to, packet),
      ingress: direction(packet.to, "ingress", packet.from, packet),
    }),
  };
}
