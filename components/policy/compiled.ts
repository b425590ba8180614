/** The compiled form: what a host's datapath is given. It knows identities and ports, and nothing of labels. */
import { createHash } from "node:crypto";
import type { Protocol } from "./arguments.js";

export type Action = "allow" | "deny";

export interface CompiledRule {
  /** 0 to 65535; the highest one that matches decides, with equal ones deny does. */
  precedence: number;
  action: Action;
  /** 0: any. */
  identity: number;
  protocol: Protocol | "any";
  /** Ports of the destination, both ends included. For ICMP the type in both, or 0 to 255 for every type. */
  portStart: number;
  portEnd: number;
  /** ICMP only, with a single type. Absent: every code. */
  code?: number;
}

export interface CompiledDirection {
  /** false: everything passes. true: what no rule matches does not. */
  enforce: boolean;
  /** By precedence, highest first, then by identity, protocol, ports, action, code. No two have the same match. */
  rules: CompiledRule[];
}

export interface CompiledEndpoint {
  /** `namespace/name`. */
  name: string;
  identity: number;
  ingress: CompiledDirection;
  egress: CompiledDirection;
}

export interface CompiledPolicy {
  version: 1;
  /** SHA-256, in hexadecimal, over the canonical JSON of everything else. */
  hash: string;
  /**
   * Prefixes with an identity of their own, in the order of their texts. An address has that of the longest one around
   * it.
   */
  identities: { id: number; cidr: string }[];
  /** In the order of their names. */
  endpoints: CompiledEndpoint[];
}

/** Identities that are not given out: `any` is what rules say, the others belong to addresses. */
export const reservedIdentities = { any: 0, host: 1, worldIpv4: 2, worldIpv6: 3 } as const;

/** Identities of groups start here, one for each set of labels. */
export const firstEndpointIdentity = 256;

/** Identities of prefixes start here. */
export const firstPrefixIdentity = 0x0100_0000;

/** JSON with sorted keys and without spaces: equal values have equal texts. */
export function canonicalJson(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(canonicalJson).join(",")}]`;
  if (typeof value !== "object" || value === null) return JSON.stringify(value);
  const entries = Object.entries(value).filter(([, content]) => content !== undefined);
  entries.sort(([a], [b]) => (a < b ? -1 : 1));
  return `{${entries.map(([name, content]) => `${JSON.stringify(name)}:${canonicalJson(content)}`).join(",")}}`;
}

/** Gives a policy its hash. */
export function sealed(content: Omit<CompiledPolicy, "hash">): CompiledPolicy {
  return { ...content, hash: createHash("sha256").update(canonicalJson(content)).digest("hex") };
}
