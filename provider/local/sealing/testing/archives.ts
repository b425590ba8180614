/** For tests: archives of layers, byte by byte, also such as no library writes. */

export interface Entry {
  name: string;
  /** Type flag; default that of the name and what else is given: folder, symbolic link, file. */
  flag?: string;
  content?: string | Buffer;
  /** Size in the header, when it is not that of the content. */
  size?: number;
  mode?: number;
  uid?: number;
  gid?: number;
  mtime?: number;
  linkname?: string;
  major?: number;
  minor?: number;
  /** Records of an extended header; extended attributes by "SCHILY.xattr.<name>". */
  pax?: Record<string, string | Buffer>;
  magic?: "ustar" | "gnu" | "v7";
  prefix?: string;
  /** Numbers in binary, as GNU writes large ones. */
  isBinary?: boolean;
}

const blockSize = 512;

/** @param end default the two blocks of zeros that mark the end. */
export function archiveOf(entries: Entry[], end: Buffer = Buffer.alloc(2 * blockSize)): Buffer {
  return Buffer.concat([...entries.map(bytesOf), end]);
}

/** An entry with its extended header and content. */
export function bytesOf(entry: Entry): Buffer {
  const content = Buffer.from(entry.content ?? "");
  const isFolder = entry.name.endsWith("/");
  const flag = entry.flag ?? (isFolder ? "5" : entry.linkname === undefined ? "0" : "2");
  const block = headerOf({ mode: isFolder ? 0o755 : 0o644, ...entry, flag, size: entry.size ?? content.length });
  return Buffer.concat([...(entry.pax ? [paxHeader(entry.pax)] : []), block, padded(content)]);
}

/** An extended header, `x` for the next entry or `g` for all. */
export function paxHeader(records: Record<string, string | Buffer>, flag = "x"): Buffer {
  const content = Buffer.concat(Object.entries(records).map(([key, value]) => record(key, Buffer.from(value))));
  return bytesOf({ name: "PaxHeader", flag, content });
}

function record(key: string, value: Buffer): Buffer {
  const rest = Buffer.concat([Buffer.from(` ${key}=`), value, Buffer.from("\n")]);
  let length = rest.length;
  while (String(length).length + rest.length !== length) length = String(length).length + rest.length;
  return Buffer.concat([Buffer.from(String(length)), rest]);
}

const padded = (content: Buffer) =>
  Buffer.concat([content, Buffer.alloc((blockSize - (content.length % blockSize)) % blockSize)]);

function headerOf(entry: Entry & { flag: string; size: number; mode: number }): Buffer {
  const block = Buffer.alloc(blockSize);
  const number = (position: number, length: number, value: number) => {
    if (entry.isBinary) {
      block[position] = 0x80;
      block.writeUIntBE(value, position + length - 6, 6);
    } else block.write(value.toString(8).padStart(length - 1, "0"), position);
  };
  block.write(entry.name, 0, 100);
  number(100, 8, entry.mode);
  number(108, 8, entry.uid ?? 0);
  number(116, 8, entry.gid ?? 0);
  number(124, 12, entry.size);
  number(136, 12, entry.mtime ?? 1_700_000_000);
  block.write(entry.flag, 156, "latin1");
  block.write(entry.linkname ?? "", 157, 100);
  const magics = { ustar: "ustar\x0000", gnu: "ustar  \0", v7: "" };
  block.write(magics[entry.magic ?? "ustar"], 257);
  if (entry.magic !== "v7") {
    number(329, 8, entry.major ?? 0);
    number(337, 8, entry.minor ?? 0);
  }
  block.write(entry.prefix ?? "", 345);
  block.fill(" ", 148, 156);
  const sum = block.reduce((total, byte) => total + byte, 0);
  block.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  return block;
}
