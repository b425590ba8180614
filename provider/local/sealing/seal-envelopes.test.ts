/** The same table as the agent's tests read. */
import { createPublicKey } from "node:crypto";
import { readFileSync } from "node:fs";
import { join } from "node:path";
import { expect, it } from "vitest";
import { openSeal } from "./seal-manifest.js";

const { publicKey, cases } = JSON.parse(
  readFileSync(join(__dirname, "../../../hosts/api/testdata/seal-envelopes.json"), "utf8"),
) as { publicKey: string; cases: { name: string; envelope: string; accepted: boolean }[] };

it.each(cases)("$name: $accepted", ({ envelope, accepted }) => {
  const open = () => openSeal(Buffer.from(envelope), createPublicKey(publicKey));
  if (accepted) expect(open().version).toBe(1);
  else expect(open).toThrow();
});
