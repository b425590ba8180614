/**
 * Reads a layer's archive: POSIX (PAX), GNU and the older tar formats, read as Go's archive/tar reads them, because
 * containerd unpacks layers with it. No tar library for Node.js fits: they decode extended attributes as text, apply
 * global headers, and do not support sparse files. https://www.gnu.org/software/tar/manual/html_node/Standard.html,
 * https://pkg.go.dev/archive/tar
 */
import type { FileHandle } from "node:fs/promises";

const blockSize = 512;
/** Longest extended header, bytes; as in Go's archive/tar. */
const maximumHeader = 1024 * 1024;
const windowSize = 256 * 1024;

/** A part of a file's content. Between parts are zeros. */
export interface Extent {
  /** Where it is in the file, bytes. */
  offset: number;
  length: number;
  /** Where it is in the archive, bytes. */
  position: number;
}

export interface Timestamp {
  /** Since 1970, not negative. */
  seconds: number;
  nanoseconds: number;
}

/** Fields of all kinds of files. */
export interface Metadata {
  /** Permissions with setuid, setgid and sticky. */
  mode: number;
  uid: number;
  gid: number;
  modified: Timestamp;
  /** By name, which has one character for each byte. */
  xattrs: Map<string, Buffer>;
}

export type EntryType = "file" | "link" | "symlink" | "character-device" | "block-device" | "directory" | "fifo";

/** One entry. Names have one character for each byte (Latin-1), as nothing says that they are UTF-8. */
export interface ArchiveEntry extends Metadata {
  name: string;
  type: EntryType;
  /** Of symbolic and hard links. */
  linkname: string;
  /** Of devices. */
  major: number;
  minor: number;
  /** Of a file's content, bytes; 0 for all others. */
  size: number;
  extents: Extent[];
}

/** A name for messages. */
export const printable = (name: string): string => JSON.stringify(Buffer.from(name, "latin1").toString());

/** An archive that containerd would refuse too. */
export class ArchiveError extends Error {
  override readonly name = "ArchiveError";
}

const types: Record<string, EntryType> = {
  "\0": "file",
  "0": "file",
  "1": "link",
  "2": "symlink",
  "3": "character-device",
  "4": "block-device",
  "5": "directory",
  "6": "fifo",
};

/** Values of an extended header by keyword. */
type Records = Map<string, Buffer>;

/**
 * The entries of an archive in their order, global headers left out.
 *
 * @param size of the archive, bytes. An archive may end without the blocks of zeros that mark its end, and may be
 * empty.
 * @throws ArchiveError when it is cut off or malformed.
 */
export async function* readArchive(file: FileHandle, size: number): AsyncGenerator<ArchiveEntry> {
  const input = new Input(file, size);
  let position = 0;
  let records: Records = new Map();
  let longName: string | undefined;
  let longLink: string | undefined;
  for (;;) {
    if (position >= size) return;
    const block = await input.read(position, blockSize, "a header");
    if (isZero(block)) {
      if (position + blockSize >= size) return;
      if (isZero(await input.read(position + blockSize, blockSize, "its end"))) return;
      throw new ArchiveError(`a block of zeros is followed by other content at byte ${position + blockSize}`);
    }
    const header = decodeHeader(block, position);
    position += blockSize;
    const special = "xgLK".includes(header.flag);
    if (special) {
      if (header.size > maximumHeader) {
        throw new ArchiveError(
          `the extended header at byte ${position} has ${header.size} bytes, more than ${maximumHeader}`,
        );
      }
      const content = await input.read(position, header.size, "an extended header");
      position = input.after(position, header.size);
      if (header.flag === "x") records = decodeRecords(content, position);
      else if (header.flag === "L") longName = text(content);
      else if (header.flag === "K") longLink = text(content);
      else decodeRecords(content, position);
      if (header.flag === "g") [records, longName, longLink] = [new Map<string, Buffer>(), undefined, undefined];
      continue;
    }
    const name = longName ?? pathOf(records.get("path")) ?? header.name;
    const linkname = longLink ?? pathOf(records.get("linkpath")) ?? header.linkname;
    const type = header.flag === "\0" && name.endsWith("/") ? "directory" : types[header.flag];
    if (type === undefined) {
      const what = header.flag === "S" ? "a sparse file in GNU's old format" : `of type ${JSON.stringify(header.flag)}`;
      throw new ArchiveError(`${printable(name)} is ${what}, which containerd does not unpack; use the PAX format`);
    }
    const stored = type === "file" ? numberOf(records, "size", header.size) : 0;
    if (!Number.isSafeInteger(stored) || stored < 0)
      throw new ArchiveError(`${printable(name)} has the size ${stored}`);
    if (stored > size - position) {
      throw new ArchiveError(
        `the archive is cut off: ${printable(name)} has ${stored} bytes, and ${size - position} are left of the archive`,
      );
    }
    const content =
      type === "file" ? await contentOf(input, records, position, stored, name) : { size: 0, extents: [] };
    position = input.after(position, stored);
    yield {
      name: content.name ?? name,
      type,
      linkname,
      mode: header.mode & 0o7777,
      uid: owner(numberOf(records, "uid", header.uid), "uid", name),
      gid: owner(numberOf(records, "gid", header.gid), "gid", name),
      modified: timestamp(records.get("mtime"), header.mtime, name),
      xattrs: xattrsOf(records),
      major: header.major,
      minor: header.minor,
      size: content.size,
      extents: content.extents,
    };
    [records, longName, longLink] = [new Map<string, Buffer>(), undefined, undefined];
  }
}

/** Reads the archive; neighbouring reads share one read of the file. */
class Input {
  private window: Buffer = Buffer.alloc(0);
  private start = 0;

  constructor(
    private readonly file: FileHandle,
    private readonly size: number,
  ) {}

  async read(position: number, length: number, what: string): Promise<Buffer> {
    if (length > this.size - position) {
      throw new ArchiveError(`the archive is cut off within ${what} at byte ${position}; it ends at byte ${this.size}`);
    }
    if (position < this.start || position + length > this.start + this.window.length) {
      const window = Buffer.alloc(Math.min(Math.max(windowSize, length), this.size - position));
      for (let filled = 0; filled < window.length;) {
        const { bytesRead } = await this.file.read(window, filled, window.length - filled, position + filled);
        if (bytesRead === 0) throw new Error(`the layer's file ends at byte ${position + filled}, before ${this.size}`);
        filled += bytesRead;
      }
      [this.window, this.start] = [window, position];
    }
    return this.window.subarray(position - this.start, position - this.start + length);
  }

  /** Position of the next header. The last entry may lack its padding. */
  after(position: number, length: number): number {
    return Math.min(position + Math.ceil(length / blockSize) * blockSize, this.size);
  }
}

const isZero = (block: Buffer) => block.every((byte) => byte === 0);

/** Up to the first NUL. */
function text(bytes: Buffer): string {
  const end = bytes.indexOf(0);
  return bytes.toString("latin1", 0, end === -1 ? bytes.length : end);
}

interface Header {
  name: string;
  flag: string;
  linkname: string;
  mode: number;
  uid: number;
  gid: number;
  size: number;
  mtime: number;
  major: number;
  minor: number;
}

function decodeHeader(block: Buffer, position: number): Header {
  let unsigned = 0;
  let signed = 0;
  block.forEach((byte, index) => {
    const value = index >= 148 && index < 156 ? 0x20 : byte;
    unsigned += value;
    signed += value < 128 ? value : value - 256;
  });
  const number = (from: number, to: number, what: string) => decodeNumber(block.subarray(from, to), what, position);
  const checksum = number(148, 156, "checksum");
  if (checksum !== unsigned && checksum !== signed) {
    throw new ArchiveError(`what is at byte ${position} is no tar header: its checksum is wrong`);
  }
  const magic = block.toString("latin1", 257, 265);
  const hasFields = magic.startsWith("ustar\0") || magic === "ustar  \0";
  const name = text(block.subarray(0, 100));
  const prefix = hasFields ? prefixOf(block, magic) : "";
  return {
    name: prefix === "" ? name : `${prefix}/${name}`,
    flag: String.fromCharCode(block[156]!),
    linkname: text(block.subarray(157, 257)),
    mode: number(100, 108, "mode"),
    uid: number(108, 116, "uid"),
    gid: number(116, 124, "gid"),
    size: number(124, 136, "size"),
    mtime: number(136, 148, "mtime"),
    major: hasFields ? number(329, 337, "major") : 0,
    minor: hasFields ? number(337, 345, "minor") : 0,
  };
}

/** The first half of a long name. */
function prefixOf(block: Buffer, magic: string): string {
  if (magic.startsWith("ustar\0")) {
    // Jörg Schilling's star has times behind a shorter prefix.
    const isStar = block.toString("latin1", 508, 512) === "tar\0";
    return text(block.subarray(345, isStar ? 476 : 500));
  }
  // GNU's format has times here. Go before 1.8 wrote a prefix nevertheless, and such layers still exist.
  const times = [block.subarray(345, 357), block.subarray(357, 369)];
  const isTimes = times.every(
    (field) => (field[0]! & 0x80) !== 0 || /^[ \0]*[0-7]*[ \0]*$/.test(field.toString("latin1")),
  );
  const prefix = text(block.subarray(345, 500));
  return isTimes || !/^[\x00-\x7f]*$/.test(prefix) ? "" : prefix;
}

/** Octal digits, or a binary number whose first bit is set. */
function decodeNumber(field: Buffer, what: string, position: number): number {
  if ((field[0]! & 0x80) !== 0) {
    const bits = BigInt(field.length * 8 - 1);
    return Number(BigInt.asIntN(Number(bits), BigInt(`0x${field.toString("hex")}`)));
  }
  const digits = field
    .toString("latin1")
    .replace(/^[ \0]+|[ \0]+$/g, "")
    .split("\0")[0]!;
  if (!/^[0-7]*$/.test(digits)) {
    throw new ArchiveError(`${what} in the header at byte ${position}: ${JSON.stringify(digits)} is no octal number`);
  }
  return digits === "" ? 0 : parseInt(digits, 8);
}

/** Keywords whose values may not contain NUL. */
const names = ["path", "linkpath", "uname", "gname"];

/** Records of the form "<length> <keyword>=<value>\n". An empty value removes an earlier one. */
function decodeRecords(content: Buffer, position: number): Records {
  const wrong = (why: string) => new ArchiveError(`the extended header before byte ${position}: ${why}`);
  const records: Records = new Map();
  const map: Buffer[] = [];
  for (let at = 0; at < content.length;) {
    const space = content.indexOf(0x20, at);
    const digits = space === -1 ? "" : content.toString("latin1", at, space);
    const end = at + Number(digits);
    if (!/^[0-9]+$/.test(digits) || end > content.length || end <= space + 2 || content[end - 1] !== 0x0a) {
      throw wrong(`a record at its byte ${at} has no right length`);
    }
    const equals = content.indexOf(0x3d, space + 1);
    if (equals <= space + 1 || equals >= end) throw wrong(`a record at its byte ${at} has no keyword`);
    const key = content.toString("latin1", space + 1, equals);
    const value = content.subarray(equals + 1, end - 1);
    if (key.includes("\0") || (names.includes(key) && value.includes(0))) throw wrong(`${printable(key)} holds a NUL`);
    if (key === "GNU.sparse.offset" || key === "GNU.sparse.numbytes") {
      // Format 0.0 says the map in many records of the same keywords.
      if ((key === "GNU.sparse.offset") !== (map.length % 2 === 0)) throw wrong(`${key} is not in its turn`);
      map.push(value);
      records.set("GNU.sparse.map", Buffer.from(map.map((one) => one.toString("latin1")).join(",")));
    } else if (value.length === 0 && !key.startsWith("SCHILY.xattr.")) records.delete(key);
    else records.set(key, value);
    at = end;
  }
  return records;
}

const pathOf = (value: Buffer | undefined) => value?.toString("latin1");

function numberOf(records: Records, key: string, otherwise: number): number {
  const value = records.get(key)?.toString("latin1");
  if (value === undefined) return otherwise;
  if (!/^[+-]?[0-9]+$/.test(value))
    throw new ArchiveError(`${key}: ${printable(value)} in an extended header is no number`);
  return Number(value);
}

function owner(value: number, what: string, name: string): number {
  if (value >= 0 && value < 0xffff_ffff) return value;
  throw new ArchiveError(`${printable(name)}: ${what} ${value} is not between 0 and 4294967294`);
}

/** As in containerd, times before 1970 and times beyond 64 bits of nanoseconds become 1970. */
function timestamp(record: Buffer | undefined, header: number, name: string): Timestamp {
  const value = record?.toString("latin1") ?? String(BigInt(header));
  const match = /^([+-]?)([0-9]+)(?:\.([0-9]*))?$/.exec(value);
  if (match === null) throw new ArchiveError(`${printable(name)}: mtime ${printable(value)} is no time`);
  const seconds = Number(match[2]);
  if (match[1] === "-" || seconds > 9_223_372_036) return { seconds: 0, nanoseconds: 0 };
  return { seconds, nanoseconds: Number((match[3] ?? "").slice(0, 9).padEnd(9, "0")) };
}

function xattrsOf(records: Records): Map<string, Buffer> {
  const prefix = "SCHILY.xattr.";
  // The window that a value is in is read over.
  return new Map(
    [...records]
      .filter(([key]) => key.startsWith(prefix))
      .map(([key, value]) => [key.slice(prefix.length), Buffer.from(value)]),
  );
}

interface Content {
  /** Sparse files may have another name than their entry. */
  name?: string;
  size: number;
  extents: Extent[];
}

/** Where the content of a file is: in one piece, or as one of GNU's three PAX formats of sparse files says. */
async function contentOf(
  input: Input,
  records: Records,
  position: number,
  stored: number,
  entry: string,
): Promise<Content> {
  const record = (key: string) => records.get(`GNU.sparse.${key}`)?.toString("latin1");
  const version = `${record("major") ?? ""}.${record("minor") ?? ""}`;
  const written = record("map");
  if (version !== "1.0" && version !== "0.0" && version !== "0.1" && (version !== "." || written === undefined)) {
    return { size: stored, extents: stored === 0 ? [] : [{ offset: 0, length: stored, position }] };
  }
  const wrong = (why: string) => new ArchiveError(`${printable(entry)}: its map of sparse content ${why}`);
  const number = (digits: string) => {
    if (!/^[0-9]+$/.test(digits) || !Number.isSafeInteger(Number(digits))) throw wrong(`holds ${printable(digits)}`);
    return Number(digits);
  };
  const name = record("name");
  const size = number(record("size") ?? record("realsize") ?? String(stored));
  let numbers: number[];
  let data = position;
  if (version === "1.0") {
    const map = await sparseMap(input, position, stored, wrong);
    numbers = map.numbers.map(number);
    data = map.end;
  } else {
    numbers = written === undefined ? [] : written.split(",").map(number);
    if (numbers.length !== 2 * number(record("numblocks") ?? String(numbers.length / 2))) throw wrong("is not whole");
  }
  const extents: Extent[] = [];
  let from = 0;
  for (let index = 0; index + 1 < numbers.length; index += 2) {
    const [offset, length] = [numbers[index]!, numbers[index + 1]!];
    if (offset < from || offset + length > size) throw wrong("has parts outside the file or out of order");
    if (length > position + stored - data) throw wrong("names more than is stored");
    if (length > 0) extents.push({ offset, length, position: data });
    data += length;
    from = offset + length;
  }
  if (data !== position + stored) throw wrong("names less than is stored");
  return { size, extents, ...(name === undefined ? {} : { name }) };
}

/** The map of format 1.0: decimal numbers, each on a line, in blocks of their own before the content. */
async function sparseMap(input: Input, position: number, stored: number, wrong: (why: string) => Error) {
  let lines: string[] = [];
  let rest = "";
  for (let at = position; ; at += blockSize) {
    if (at + blockSize > position + stored || at - position > maximumHeader) throw wrong("does not end");
    const pieces = (rest + (await input.read(at, blockSize, "a map of sparse content")).toString("latin1")).split("\n");
    rest = pieces.pop()!;
    lines = lines.concat(pieces);
    const count = lines.length > 0 && /^[0-9]+$/.test(lines[0]!) ? 2 * Number(lines[0]) : NaN;
    if (lines.length > 0 && Number.isNaN(count)) throw wrong(`holds ${printable(lines[0]!)}`);
    if (lines.length > count) return { numbers: lines.slice(1, count + 1), end: at + blockSize };
  }
}
