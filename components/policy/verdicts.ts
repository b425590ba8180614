/**
 * What becomes of all packets with one peer in one direction, as a function of protocol and port that has one form
 * only: the fewest pieces. So policies that mean the same compile to the same, whatever order and number of rules they
 * are written in.
 */
import type { Protocol, TierAction } from "./arguments.js";
import type { Action } from "./compiled.js";

/** A part of one protocol. For ICMP a place is `256 × type + code`. */
export interface Range {
  protocol: Protocol | "any";
  /** 0 to 65535, both ends included. */
  start: number;
  end: number;
}

/** Every place of a protocol. */
export const everyPlace = { start: 0, end: 0xffff } as const;

/** Consecutive places with one verdict. */
export interface Piece {
  start: number;
  end: number;
  action: Action;
}

/**
 * The verdict on each protocol: pieces in order, without gaps, neighbours different. `any`: protocols without a name
 * here.
 */
export type Verdicts = Record<Protocol | "any", readonly Piece[]>;

export const protocols: readonly Protocol[] = ["TCP", "UDP", "SCTP", "ICMP", "ICMPv6"];

/** One rule with one peer. */
export interface Decision {
  /** admin and baseline: in order. deny, then allow: the tier of network policies, in any order. */
  tier: "admin" | "deny" | "allow" | "baseline";
  action: TierAction;
  ranges: readonly Range[];
}

/** Decides places one after the other; each is decided once. */
class Places {
  private readonly starts: number[];
  private readonly verdicts: (TierAction | undefined)[];
  /** The next place that is undecided, itself included; paths get shorter as they are walked. */
  private next: number[];

  constructor(ranges: readonly Range[]) {
    const starts = new Set([0]);
    for (const { start, end } of ranges) starts.add(start).add(end + 1);
    starts.delete(everyPlace.end + 1);
    this.starts = [...starts].sort((a, b) => a - b);
    this.verdicts = this.starts.map(() => undefined);
    this.next = this.starts.map((_, index) => index);
    this.next.push(this.starts.length);
  }

  decide({ start, end }: { start: number; end: number }, action: TierAction): void {
    for (let at = this.undecided(this.indexOf(start)); at < this.starts.length; at = this.undecided(at + 1)) {
      if ((this.starts[at] as number) > end) return;
      this.verdicts[at] = action;
      this.next[at] = at + 1;
    }
  }

  /** What was passed is undecided again. */
  reopen(): void {
    this.verdicts.forEach((verdict, index) => {
      if (verdict === "Pass") this.verdicts[index] = undefined;
    });
    this.next = this.verdicts.map((verdict, index) => (verdict === undefined ? index : index + 1));
    this.next.push(this.starts.length);
  }

  pieces(): Piece[] {
    const pieces: Piece[] = [];
    this.starts.forEach((start, index) => {
      const end = (this.starts[index + 1] ?? everyPlace.end + 1) - 1;
      const action: Action = this.verdicts[index] === "Deny" ? "deny" : "allow";
      const last = pieces.at(-1);
      if (last?.action === action) last.end = end;
      else pieces.push({ start, end, action });
    });
    return pieces;
  }

  private undecided(index: number): number {
    let at = index;
    while (this.next[at] !== at) {
      const skipped = this.next[this.next[at] as number] as number;
      this.next[at] = skipped;
      at = skipped;
    }
    return at;
  }

  private indexOf(start: number): number {
    let low = 0;
    for (let high = this.starts.length - 1; low < high;) {
      const middle = (low + high + 1) >> 1;
      if ((this.starts[middle] as number) <= start) low = middle;
      else high = middle - 1;
    }
    return low;
  }
}

/**
 * The verdicts of decisions in their order.
 * @param isolated whether a network policy isolates the group in this direction; the baseline tier counts only if none
 * does
 */
export function decide(decisions: readonly Decision[], isolated: boolean): Verdicts {
  const ofProtocol = (protocol: Protocol | "any"): Piece[] => {
    const places = new Places(decisions.flatMap(({ ranges }) => ranges.filter((range) => concerns(range, protocol))));
    const apply = (tier: Decision["tier"]): void => {
      for (const decision of decisions) {
        if (decision.tier !== tier) continue;
        for (const range of decision.ranges) if (concerns(range, protocol)) places.decide(range, decision.action);
      }
      if (tier === "admin") places.reopen();
    };
    apply("admin");
    apply("deny");
    apply("allow");
    if (isolated) places.decide(everyPlace, "Deny");
    else apply("baseline");
    return places.pieces();
  };
  const named = new Set(decisions.flatMap(({ ranges }) => ranges.map(({ protocol }) => protocol)));
  const any = ofProtocol("any");
  const of = (protocol: Protocol): readonly Piece[] => (named.has(protocol) ? ofProtocol(protocol) : any);
  return { any, TCP: of("TCP"), UDP: of("UDP"), SCTP: of("SCTP"), ICMP: of("ICMP"), ICMPv6: of("ICMPv6") };
}

const concerns = (range: Range, protocol: Protocol | "any"): boolean =>
  range.protocol === "any" || range.protocol === protocol;

/** Where the verdicts of two functions differ, with those of the first. */
export function difference(pieces: readonly Piece[], base: readonly Piece[]): Piece[] {
  const found: Piece[] = [];
  let at = 0;
  for (const piece of pieces) {
    while ((base[at] as Piece).end < piece.start) at += 1;
    for (let other = at; other < base.length && (base[other] as Piece).start <= piece.end; other += 1) {
      const { start, end, action } = base[other] as Piece;
      if (action === piece.action) continue;
      found.push({ start: Math.max(start, piece.start), end: Math.min(end, piece.end), action: piece.action });
    }
  }
  return found;
}
