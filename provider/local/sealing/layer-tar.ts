/**
 * Writes the changes of a layer as an archive in the one form that mkfs.erofs reads correctly: POSIX tar with PAX
 * records.
 */
import type { Change, Content } from "./layer-tree.js";

const blockSize = 512;
const chunkSize = 1024 * 1024;

const flags: Record<Change["type"], string> = {
  file: "0",
  link: "1",
  symlink: "2",
  "character-device": "3",
  "block-device": "4",
  directory: "5",
  fifo: "6",
};

/** The archive in pieces. Names have one character for each byte. */
export async function* writeArchive(changes: Change[]): AsyncGenerator<Buffer> {
  for (const change of changes) {
    yield headerOf(change);
    if (change.content) {
      yield* contentOf(change.content);
      yield padding(change.content.size);
    }
  }
  yield Buffer.alloc(2 * blockSize);
}

async function* contentOf({ archive, size, extents }: Content): AsyncGenerator<Buffer> {
  let written = 0;
  for (const { offset, length, position } of extents) {
    yield* zeros(offset - written);
    for (let done = 0; done < length;) {
      const chunk = Buffer.allocUnsafe(Math.min(chunkSize, length - done));
      const { bytesRead } = await archive.read(chunk, 0, chunk.length, position + done);
      if (bytesRead === 0) throw new Error(`the layer's file ends at byte ${position + done}`);
      yield chunk.subarray(0, bytesRead);
      done += bytesRead;
    }
    written = offset + length;
  }
  yield* zeros(size - written);
}

function* zeros(length: number): Generator<Buffer> {
  for (let left = length; left > 0; left -= chunkSize) yield Buffer.alloc(Math.min(left, chunkSize));
}

const padding = (size: number) => Buffer.alloc((blockSize - (size % blockSize)) % blockSize);

function headerOf(change: Change): Buffer {
  const records: Buffer[] = [];
  const record = (key: string, value: string | Buffer) =>
    records.push(recordOf(key, Buffer.from(value as string, "latin1")));
  const field = (key: string, value: string, length: number) => {
    if (value.length <= length) return value;
    record(key, value);
    return value.slice(0, length);
  };
  const number = (key: string, value: number, digits: number) => {
    if (value < 8 ** digits) return octal(value, digits);
    record(key, String(value));
    return octal(0, digits);
  };
  const block = Buffer.alloc(blockSize);
  const put = (position: number, value: string) => block.write(value, position, "latin1");
  put(0, field("path", change.type === "directory" ? `${change.path}/` : change.path, 99));
  put(100, octal(change.mode, 7));
  put(108, number("uid", change.uid, 7));
  put(116, number("gid", change.gid, 7));
  put(124, number("size", change.content?.size ?? 0, 11));
  const { seconds, nanoseconds } = change.modified;
  put(136, number("mtime", seconds, 11));
  if (nanoseconds > 0) record("mtime", `${seconds}.${String(nanoseconds).padStart(9, "0")}`);
  put(156, flags[change.type]);
  put(157, field("linkpath", change.linkname, 99));
  put(257, "ustar\x0000");
  put(329, octal(change.major, 7));
  put(337, octal(change.minor, 7));
  for (const [name, value] of change.xattrs) record(`SCHILY.xattr.${name}`, value);
  sign(block);
  if (records.length === 0) return block;
  const content = Buffer.concat(records);
  const extended = Buffer.alloc(blockSize);
  extended.write("PaxHeader", 0);
  for (const position of [100, 108, 116, 136, 329, 337]) extended.write(octal(0, 7), position);
  extended.write(octal(content.length, 11), 124);
  extended.write("x", 156);
  extended.write("ustar\x0000", 257);
  sign(extended);
  return Buffer.concat([extended, content, padding(content.length), block]);
}

/** "<length> <keyword>=<value>\n"; the length counts itself. */
function recordOf(key: string, value: Buffer): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${key}=`, "latin1"), value, Buffer.from("\n")]);
  let length = rest.length;
  while (length !== rest.length + String(length).length) length = rest.length + String(length).length;
  return Buffer.concat([Buffer.from(String(length)), rest]);
}

const octal = (value: number, digits: number) => value.toString(8).padStart(digits, "0");

function sign(block: Buffer): void {
  block.fill(" ", 148, 156);
  block.write(
    `${octal(
      block.reduce((sum, byte) => sum + byte, 0),
      6,
    )}\0 `,
    148,
  );
}
