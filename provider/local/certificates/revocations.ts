/**
 * The client certificates of a CA that are revoked: a file beside the CA's certificate, `ca.revoked.json` beside
 * `ca.crt`. Hosts get it at first contact, and whenever somebody reaches them who has it.
 */
import * as v from "valibot";
import { decode, object, record } from "../../../shared/decode.js";
import { serialNumberPattern } from "../../../shared/serial-number.js";
import { readFileIfPresent, writeFileAtomic } from "../../system/atomic-file.js";
import { withLock } from "../../system/lock.js";

const schema = object({
  /** By serial number, when it was revoked. */
  revoked: record(v.string()),
});

/** Where the revocations of a CA are. */
export function revocationsFile(certificateFile: string): string {
  return `${certificateFile.replace(/\.(crt|pem|cer)$/, "")}.revoked.json`;
}

/**
 * The serial numbers, in order; none when nothing was revoked.
 *
 * @throws Error when the file is there and is not what it should be.
 */
export async function readRevocations(certificateFile: string): Promise<string[]> {
  return Object.keys(await read(revocationsFile(certificateFile))).sort();
}

async function read(file: string): Promise<Record<string, string>> {
  const content = await readFileIfPresent(file);
  if (content === undefined) return {};
  const { revoked } = decode(schema, content, file);
  const wrong = Object.keys(revoked).find((number) => !serialNumberPattern.test(number));
  if (wrong !== undefined) throw new Error(`${file}: revoked: ${JSON.stringify(wrong)} is no serial number`);
  return revoked;
}

/** Records revocations; those that are there stay as they are. Returns all serial numbers. */
export async function recordRevocations(certificateFile: string, serialNumbers: string[]): Promise<string[]> {
  const file = revocationsFile(certificateFile);
  return withLock(`${file}.lock`, undefined, async () => {
    const before = await read(file);
    const now = new Date().toISOString();
    const revoked = { ...Object.fromEntries(serialNumbers.map((number) => [number, now])), ...before };
    if (Object.keys(revoked).length > Object.keys(before).length) {
      await writeFileAtomic(file, `${JSON.stringify({ revoked }, undefined, 2)}\n`);
    }
    return Object.keys(revoked).sort();
  });
}
