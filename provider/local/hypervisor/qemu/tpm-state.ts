/**
 * A TPM of its own for a machine that resumes the state of another one. Registers and null hierarchy are those of the
 * saved boot, as the kernel in memory expects them; the seeds, from which every key of a TPM is derived, are its own.
 */
import { createHash } from "node:crypto";
import { rm } from "node:fs/promises";
import type { Socket } from "node:net";
import { join } from "node:path";
import { terminate } from "../../../system/process.js";
import { startTpm, tpmSocket } from "./tpm.js";
import { connectUnix } from "./unix-socket.js";

/** Commands of swtpm's control channel (tpm_ioctl.h); all numbers are 32 bits, big-endian. */
const commands = { init: 2, shutdown: 3, getStateBlob: 12 } as const;
const permanentState = 1;
const decrypted = 1;
const answerMilliseconds = 10_000;

/** Name of the section that holds the TPM's state in QEMU's stream, with its length before it. */
const section = Buffer.from("\x0ctpm-emulator");
/** Instance and version of the section. */
const sectionHeader = 8;

/**
 * Makes a new TPM for the machine in `folder` in place of any older one, and returns its permanent state: seeds, no
 * registers.
 */
export async function makeTpm(folder: string, signal: AbortSignal): Promise<Buffer> {
  await rm(join(folder, "tpm"), { recursive: true, force: true });
  const process = await startTpm(folder, signal);
  const socket = await connectUnix(join(folder, tpmSocket), answerMilliseconds, signal);
  try {
    await ask(socket, [commands.init, 0], 4);
    const header = await ask(socket, [commands.getStateBlob, decrypted, permanentState, 0], 16);
    const [total, length] = [header.readUInt32BE(8), header.readUInt32BE(12)];
    if (total !== length) throw new Error(`swtpm gives ${length} of the ${total} bytes of its state`);
    const state = await read(socket, length);
    await ask(socket, [commands.shutdown], 4);
    return state;
  } finally {
    socket.destroy();
    await terminate(process, 2000);
  }
}

/**
 * QEMU's stream with its permanent state of the TPM replaced by `permanent`. libtpms keeps the seeds in the volatile
 * state too and refuses states that do not match, so they are replaced there as well, and its checksum is computed
 * again.
 *
 * @throws Error when stream or states are not as QEMU 7.2 and libtpms 0.9 write them.
 */
export function withPermanentState(stream: Buffer, permanent: Buffer): Buffer {
  const at = stream.indexOf(section);
  if (at < 0 || stream.indexOf(section, at + 1) >= 0) throw new UnknownTpmStateError("QEMU's stream has no TPM");
  const before = at + section.length + sectionHeader;
  const [oldPermanent, afterPermanent] = blobAt(stream, before);
  const [volatile, afterVolatile] = blobAt(stream, afterPermanent);
  return Buffer.concat([
    stream.subarray(0, before),
    ...withLength(stream, before, permanent),
    ...withLength(stream, afterPermanent, withSeeds(volatile, oldPermanent, permanent)),
    stream.subarray(afterVolatile),
  ]);
}

/** Flags, length, bytes: returns the bytes and where they end. */
function blobAt(stream: Buffer, offset: number): [Buffer, number] {
  if (offset + 8 > stream.length) throw new UnknownTpmStateError("QEMU's stream ends within the TPM");
  const end = offset + 8 + stream.readUInt32BE(offset + 4);
  return [stream.subarray(offset + 8, end), end];
}

function withLength(stream: Buffer, offset: number, content: Buffer): Buffer[] {
  const length = Buffer.alloc(4);
  length.writeUInt32BE(content.length);
  return [stream.subarray(offset, offset + 4), length, content];
}

/** The volatile state with the seeds of `permanent`; `old` is the permanent state that it belongs to. */
function withSeeds(volatile: Buffer, old: Buffer, permanent: Buffer): Buffer {
  const places: { inVolatile: number; inPermanent: number }[] = [];
  for (let inVolatile = 0; inVolatile + seedsLength <= volatile.length; inVolatile++) {
    if (!areSeeds(volatile, inVolatile)) continue;
    const inPermanent = old.indexOf(volatile.subarray(inVolatile, inVolatile + seedsLength));
    if (inPermanent >= 0) places.push({ inVolatile, inPermanent });
  }
  const [place] = places;
  if (!place || places.length > 1 || !areSeeds(permanent, place.inPermanent)) {
    throw new UnknownTpmStateError("the seeds are not where they are looked for");
  }
  const start = [...Array(maximumHeader).keys()].find((offset) =>
    checksum(volatile, offset).equals(volatile.subarray(-20)),
  );
  if (start === undefined) throw new UnknownTpmStateError("the volatile state has another checksum");
  const result = Buffer.from(volatile);
  permanent.copy(result, place.inVolatile, place.inPermanent, place.inPermanent + seedsLength);
  checksum(result, start).copy(result, result.length - 20);
  return result;
}

/** Endorsement, storage and platform seed: three TPM2B of 64 bytes. */
const seedLength = 64;
const seedsLength = 3 * (2 + seedLength);
/** Of what swtpm writes before a state. */
const maximumHeader = 64;

function areSeeds(state: Buffer, offset: number): boolean {
  return [0, 1, 2].every((index) => {
    const at = offset + index * (2 + seedLength);
    return at + 2 + seedLength <= state.length && state.readUInt16BE(at) === seedLength;
  });
}

const checksum = (state: Buffer, start: number) => createHash("sha1").update(state.subarray(start, -20)).digest();

/** The states have a form that this version of Palisade does not know. */
class UnknownTpmStateError extends Error {
  override readonly name = "UnknownTpmStateError";
  constructor(what: string) {
    super(`the template's TPM cannot be made a clone's own: ${what}`);
  }
}

/** Sends a command and returns the answer's fixed part, whose first number is the result. */
async function ask(socket: Socket, numbers: number[], bytes: number): Promise<Buffer> {
  const request = Buffer.alloc(4 * numbers.length);
  numbers.forEach((number, index) => request.writeUInt32BE(number, 4 * index));
  socket.write(request);
  const answer = await read(socket, bytes);
  if (answer.readUInt32BE(0) !== 0) {
    throw new Error(`swtpm: command ${numbers[0]} failed with 0x${answer.readUInt32BE(0).toString(16)}`);
  }
  return answer;
}

async function read(socket: Socket, bytes: number): Promise<Buffer> {
  const end = Date.now() + answerMilliseconds;
  for (;;) {
    const data = socket.read(bytes) as Buffer | null;
    if (data?.length === bytes) return data;
    if (socket.destroyed || Date.now() > end) throw new Error(`swtpm gave no answer of ${bytes} bytes`);
    await new Promise<void>((resolve) => {
      const timer = setTimeout(resolve, 100);
      socket.once("readable", () => {
        clearTimeout(timer);
        resolve();
      });
    });
  }
}
