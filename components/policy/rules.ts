/**
 * Verdicts as rules of the compiled form. Of the rules with the same precedence at most one matches a packet, so that
 * the datapath finds a verdict by one look-up per precedence, however many rules there are.
 */
import type { Protocol } from "./arguments.js";
import { type CompiledRule, reservedIdentities } from "./compiled.js";
import { difference, type Piece, protocols, type Verdicts } from "./verdicts.js";

/** What makes a rule more specific; each is worth more than those before it together. */
const specific = { protocol: 1, icmpType: 2, icmpCode: 3, identity: 4 } as const;

const types = Array.from({ length: 256 }, (_, type) => type);

const denied: readonly Piece[] = [{ start: 0, end: 0xffff, action: "deny" }];

/** Rules for peers that no other rules name, where without rules nothing passes. */
export function commonRules(verdicts: Verdicts): CompiledRule[] {
  return rulesOver(verdicts, undefined, reservedIdentities.any, 0);
}

/** Rules for one peer, where the common ones hold without them. */
export function peerRules(verdicts: Verdicts, common: Verdicts, identity: number): CompiledRule[] {
  return rulesOver(verdicts, common, identity, specific.identity);
}

function rulesOver(
  verdicts: Verdicts,
  base: Verdicts | undefined,
  identity: number,
  precedence: number,
): CompiledRule[] {
  const rules: CompiledRule[] = [];
  // Protocols without a name have no ports: one piece.
  const [{ action }] = verdicts.any as [Piece];
  const covers = action !== (base?.any ?? denied)[0]?.action;
  if (covers) rules.push({ precedence, action, identity, protocol: "any", portStart: 0, portEnd: 0xffff });
  for (const protocol of protocols) {
    const pieces = verdicts[protocol];
    const below = covers ? verdicts.any : (base?.[protocol] ?? denied);
    if (pieces === below) continue;
    const rule = { identity, protocol, precedence: precedence + specific.protocol };
    if (protocol === "ICMP" || protocol === "ICMPv6") rules.push(...icmpRules(pieces, below, rule));
    else {
      for (const { start, end, action: differing } of difference(pieces, below)) {
        rules.push({ ...rule, action: differing, portStart: start, portEnd: end });
      }
    }
  }
  return rules;
}

/** The compiled form knows one type or all of them, and one code or all of them. */
function icmpRules(
  pieces: readonly Piece[],
  below: readonly Piece[],
  rule: { identity: number; protocol: Protocol; precedence: number },
): CompiledRule[] {
  const differing = difference(pieces, below);
  if (differing.length === 0) return [];
  const rules: CompiledRule[] = [];
  const overlaps = (type: number, { start, end }: Piece): boolean => start <= 256 * type + 255 && end >= 256 * type;
  let changed = types.filter((type) => differing.some((piece) => overlaps(type, piece)));
  if (changed.length > 128) {
    const action = prevailing(pieces, 0, 0xffff);
    rules.push({ ...rule, action, portStart: 0, portEnd: 255 });
    changed = types.filter((type) => pieces.some((piece) => piece.action !== action && overlaps(type, piece)));
  }
  for (const type of changed) {
    const action = prevailing(pieces, 256 * type, 256 * type + 255);
    rules.push({
      ...rule,
      precedence: rule.precedence + specific.icmpType - 1,
      action,
      portStart: type,
      portEnd: type,
    });
    for (const piece of pieces) {
      if (piece.action === action || !overlaps(type, piece)) continue;
      const last = Math.min(piece.end, 256 * type + 255);
      for (let place = Math.max(piece.start, 256 * type); place <= last; place += 1) {
        rules.push({
          ...rule,
          precedence: rule.precedence + specific.icmpCode - 1,
          action: piece.action,
          portStart: type,
          portEnd: type,
          code: place % 256,
        });
      }
    }
  }
  return rules;
}

/** The verdict on most places; deny on a tie. */
function prevailing(pieces: readonly Piece[], start: number, end: number): "allow" | "deny" {
  let allowed = 0;
  for (const piece of pieces) {
    if (piece.action === "allow") allowed += Math.max(0, Math.min(piece.end, end) - Math.max(piece.start, start) + 1);
  }
  return allowed > (end - start + 1) / 2 ? "allow" : "deny";
}

const compareText = (a: string, b: string): number => (a < b ? -1 : a > b ? 1 : 0);

/** The order of the compiled form. */
export function compareRules(a: CompiledRule, b: CompiledRule): number {
  return (
    b.precedence - a.precedence ||
    a.identity - b.identity ||
    compareText(a.protocol, b.protocol) ||
    a.portStart - b.portStart ||
    a.portEnd - b.portEnd ||
    compareText(a.action, b.action) ||
    (a.code ?? -1) - (b.code ?? -1)
  );
}
