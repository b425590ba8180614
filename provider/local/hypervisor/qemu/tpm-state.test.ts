import { createHash } from "node:crypto";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { expect, it } from "vitest";
import { endorsementKey } from "./testing.js";
import { makeTpm, withPermanentState } from "./tpm-state.js";

it("makes TPMs with keys of their own", async () => {
  const folder = await mkdtemp(join(tmpdir(), "palisade-tpm-state-"));
  try {
    const { signal } = new AbortController();
    const keys: string[] = [];
    for (let time = 0; time < 2; time++) {
      expect((await makeTpm(folder, signal)).length).toBeGreaterThan(1000);
      keys.push(await endorsementKey(join(folder, "tpm")));
    }
    expect(keys[0]).toMatch(/^005a0023000b/);
    expect(keys[1]).not.toBe(keys[0]);
    expect(await endorsementKey(join(folder, "tpm")), "the same TPM gives the same key").toBe(keys[1]);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
});

const number = (value: number) => {
  const buffer = Buffer.alloc(4);
  buffer.writeUInt32BE(value);
  return buffer;
};
const blob = (content: Buffer) => Buffer.concat([number(0), number(content.length), content]);
const seeds = (fill: string) => Buffer.from(`0040${fill.repeat(64)}`.repeat(3), "hex");
const permanent = (fill: string) => Buffer.concat([Buffer.from("permanent"), seeds(fill), Buffer.from("proofs")]);
const volatile = (fill: string) => {
  const state = Buffer.concat([Buffer.from("registers"), seeds(fill), Buffer.from("clock")]);
  return Buffer.concat([Buffer.from("swtpm's header"), state, createHash("sha1").update(state).digest()]);
};
/** As QEMU writes it: name with length, instance, version, then permanent, volatile and saved state. */
const stream = (permanentFill: string, volatileFill: string) =>
  Buffer.concat([
    Buffer.from("before\x0ctpm-emulator"),
    ...[number(0), number(0), blob(permanent(permanentFill)), blob(volatile(volatileFill)), blob(Buffer.alloc(0))],
    Buffer.from('after {"name": "tpm-emulator"}'),
  ]);

it("changes the permanent state and the seeds in QEMU's stream, and nothing else", () => {
  expect(withPermanentState(stream("aa", "aa"), permanent("bb"))).toEqual(stream("bb", "bb"));
});

it("refuses a stream whose TPM it does not know", () => {
  const own = permanent("bb");
  const broken = stream("aa", "aa");
  // Within the registers.
  broken[broken.indexOf("registers")] = 0;
  for (const [wrong, why] of [
    [Buffer.from("nothing"), /no TPM/],
    [Buffer.concat([stream("aa", "aa"), stream("aa", "aa")]), /no TPM/],
    [Buffer.from("\x0ctpm-emulator"), /ends within/],
    [stream("aa", "cc"), /seeds are not where/],
    [broken, /another checksum/],
  ] as const) {
    expect(() => withPermanentState(wrong, own)).toThrow(why);
  }
  expect(() => withPermanentState(stream("aa", "aa"), Buffer.from("own"))).toThrow(/seeds are not where/);
});
