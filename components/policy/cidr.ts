/** Addresses and prefixes of both families, as numbers. */
import { isIPv4, isIPv6 } from "node:net";

export interface Prefix {
  family: 4 | 6;
  /** The first address. */
  network: bigint;
  /** Bits of the network part. */
  length: number;
  /** The one way in which it is written (RFC 5952 for IPv6). */
  text: string;
}

const bits = { 4: 32, 6: 128 } as const;

/** The lowest `count` bits set. */
const ones = (count: number): bigint => (1n << BigInt(count)) - 1n;

/** An address, or undefined when the text is none. IPv4 inside IPv6 (`::ffff:0:0/96`) is none: packets carry IPv4. */
export function parseAddress(text: string): Prefix | undefined {
  if (isIPv4(text)) {
    const network = text.split(".").reduce((sum, part) => (sum << 8n) | BigInt(part), 0n);
    return { family: 4, network, length: 32, text: `${text}/32` };
  }
  if (!isIPv6(text) || text.includes("%")) return undefined;
  const written = canonical6(text);
  const [head = "", tail] = written.split("::");
  const parts = (side: string): string[] => (side === "" ? [] : side.split(":"));
  const [before, after] = [parts(head), parts(tail ?? "")];
  const all =
    tail === undefined ? before : [...before, ...Array<string>(8 - before.length - after.length).fill("0"), ...after];
  const network = all.reduce((sum, part) => (sum << 16n) | BigInt(`0x${part}`), 0n);
  return network >> 32n === 0xffffn ? undefined : { family: 6, network, length: 128, text: `${written}/128` };
}

/** The URL standard writes IPv6 hosts as RFC 5952 does. */
const canonical6 = (text: string): string => new URL(`http://[${text}]/`).hostname.slice(1, -1);

function format({ family, network, length }: Omit<Prefix, "text">): string {
  if (family === 4) {
    return `${[24n, 16n, 8n, 0n].map((shift) => (network >> shift) & 255n).join(".")}/${length}`;
  }
  const groups = Array.from({ length: 8 }, (_, index) =>
    ((network >> BigInt(112 - 16 * index)) & 0xffffn).toString(16),
  );
  return `${canonical6(groups.join(":"))}/${length}`;
}

/** The prefix of that length around an address. */
export function prefixOf(address: Prefix, length: number): Prefix {
  const host = BigInt(bits[address.family] - length);
  const shortened = { family: address.family, network: (address.network >> host) << host, length };
  return { ...shortened, text: format(shortened) };
}

/**
 * `address/length`; undefined when the text is none. Bits of the host part are cleared: compare `network` to refuse
 * them.
 */
export function parsePrefix(text: string): { prefix: Prefix; hostBits: boolean } | undefined {
  const [, written = "", length = ""] = /^([^/]+)\/(0|[1-9]\d{0,2})$/.exec(text) ?? [];
  const address = parseAddress(written);
  if (address === undefined || Number(length) > bits[address.family]) return undefined;
  const prefix = prefixOf(address, Number(length));
  return { prefix, hostBits: prefix.network !== address.network };
}

/** Whether all addresses of `inner` lie in `outer`. */
export function contains(outer: Prefix, inner: Prefix): boolean {
  return (
    outer.family === inner.family &&
    outer.length <= inner.length &&
    (inner.network & ~ones(bits[outer.family] - outer.length)) === outer.network
  );
}

/** The prefixes that policies name, with the two questions that a compiler has. */
export class PrefixTable {
  /** In the order of their texts; the identities' order. */
  readonly prefixes: readonly Prefix[];
  private readonly byPlace: readonly number[];
  private readonly index: ReadonlyMap<string, number>;
  private readonly lengths: Record<4 | 6, number[]>;

  constructor(prefixes: Iterable<Prefix>) {
    const unique = new Map([...prefixes].map((prefix) => [prefix.text, prefix]));
    this.prefixes = [...unique.values()].sort((a, b) => compare(a.text, b.text));
    this.index = new Map(this.prefixes.map((prefix, index) => [key(prefix), index]));
    this.byPlace = this.prefixes.map((_, index) => index).sort((a, b) => place(this.at(a), this.at(b)));
    const lengthsOf = (family: 4 | 6): number[] =>
      [...new Set(this.prefixes.filter((prefix) => prefix.family === family).map(({ length }) => length))].sort(
        (a, b) => b - a,
      );
    this.lengths = { 4: lengthsOf(4), 6: lengthsOf(6) };
  }

  private at(index: number): Prefix {
    return this.prefixes[index] as Prefix;
  }

  /** The longest prefix around an address. */
  longest(address: Prefix): number | undefined {
    for (const length of this.lengths[address.family]) {
      const host = BigInt(bits[address.family] - length);
      const found = this.index.get(key({ family: address.family, network: (address.network >> host) << host, length }));
      if (found !== undefined) return found;
    }
    return undefined;
  }

  /**
   * The prefixes inside of `outer` and of none of `except`: an address whose longest prefix is one of them lies there
   * too.
   */
  inside(outer: Prefix, except: readonly Prefix[]): number[] {
    const found: number[] = [];
    let low = 0;
    for (let high = this.byPlace.length; low < high;) {
      const middle = (low + high) >> 1;
      if (place(this.at(this.byPlace[middle] as number), outer) < 0) low = middle + 1;
      else high = middle;
    }
    for (; low < this.byPlace.length; low += 1) {
      const candidate = this.byPlace[low] as number;
      if (!contains(outer, this.at(candidate))) break;
      if (!except.some((left) => contains(left, this.at(candidate)))) found.push(candidate);
    }
    return found;
  }
}

const key = ({ family, network, length }: Omit<Prefix, "text">): string =>
  `${family}/${length}/${network.toString(36)}`;

const compare = <T extends string | number | bigint>(a: T, b: T): number => (a < b ? -1 : a > b ? 1 : 0);

/** A prefix comes before those inside of it, and these before whatever lies behind it. */
const place = (a: Prefix, b: Prefix): number =>
  a.family - b.family || compare(a.network, b.network) || a.length - b.length;
