import fc from "fast-check";
import { BlockList } from "node:net";
import { expect, it } from "vitest";
import { contains, parseAddress, parsePrefix, type Prefix, PrefixTable } from "./cidr.js";

it.each([
  ["10.0.0.0/8", "10.0.0.0/8"],
  ["10.1.2.3/8", "10.0.0.0/8"],
  ["0.0.0.0/0", "0.0.0.0/0"],
  ["FD00:0:0::1/16", "fd00::/16"],
  ["::/0", "::/0"],
  ["2001:db8:0:0:1:0:0:1/128", "2001:db8::1:0:0:1/128"],
])("%s is written as %s", (text, canonical) => {
  expect(parsePrefix(text)?.prefix.text).toBe(canonical);
});

it.each([
  "10.0.0.0",
  "10.0.0/8",
  "10.0.0.0/33",
  "10.0.0.0/-1",
  "10.0.0.0/08",
  "::1/129",
  "fe80::1%eth0/64",
  "::ffff:1.2.3.4/128",
  "/8",
  "",
])("%s is no prefix", (text) => {
  expect(parsePrefix(text)).toBeUndefined();
});

const address4 = fc.ipV4();
const address6 = fc.ipV6().filter((text) => parseAddress(text) !== undefined);

it.each([
  ["IPv4", address4, 32, "ipv4"],
  ["IPv6", address6, 128, "ipv6"],
] as const)("an address lies in a prefix as Node.js says: %s", (_name, addresses, bits, family) => {
  fc.assert(
    fc.property(addresses, addresses, fc.integer({ min: 0, max: bits }), fc.boolean(), (a, b, length, same) => {
      const block = new BlockList();
      block.addSubnet(a, length, family);
      const outer = parsePrefix(`${a}/${length}`)?.prefix as Prefix;
      const text = same ? a : b;
      expect(contains(outer, parseAddress(text) as Prefix)).toBe(block.check(text, family));
    }),
  );
});

it("finds the longest prefix, and those inside of another", () => {
  const length = fc.integer({ min: 0, max: 32 });
  const near = fc.tuple(fc.nat(3), fc.nat(3), length).map(([a, b, bits]) => `10.${a}.${b}.0/${bits}`);
  const parsed = (text: string): Prefix => parsePrefix(text)?.prefix as Prefix;
  fc.assert(
    fc.property(fc.array(near, { maxLength: 20 }), near, fc.array(near, { maxLength: 2 }), (texts, text, left) => {
      const table = new PrefixTable(texts.map(parsed));
      const address = parseAddress(text.split("/")[0] ?? "") as Prefix;
      const around = table.prefixes
        .filter((prefix) => contains(prefix, address))
        .sort((a, b) => b.length - a.length)[0];
      const found = table.longest(address);
      expect(found === undefined ? undefined : table.prefixes[found]).toEqual(around);
      const except = left.map(parsed);
      const expected = table.prefixes.filter(
        (prefix) => contains(parsed(text), prefix) && !except.some((outer) => contains(outer, prefix)),
      );
      const inside = table.inside(parsed(text), except).map((index) => table.prefixes[index]);
      expect(new Set(inside)).toEqual(new Set(expected));
    }),
  );
});
