/** The end of log files, for errors and progress. */
import { open } from "node:fs/promises";
import { isAbsent } from "./atomic-file.js";

/** Text of a file from an offset on, at most its last `limit` bytes; empty when the file does not exist. */
export async function textFrom(
  path: string,
  offset: number,
  limit = 64 * 1024,
): Promise<{ text: string; size: number }> {
  let file;
  try {
    file = await open(path, "r");
  } catch (error) {
    if (isAbsent(error)) return { text: "", size: 0 };
    throw error;
  }
  try {
    const { size } = await file.stat();
    const from = Math.max(offset > size ? 0 : offset, size - limit);
    const { buffer, bytesRead } = await file.read(Buffer.alloc(size - from), 0, size - from, from);
    // The limit may cut a character: what is left of it is no text.
    let start = 0;
    while (from > 0 && start < bytesRead && (buffer[start]! & 0xc0) === 0x80) start++;
    return { text: buffer.subarray(start, bytesRead).toString(), size };
  } finally {
    await file.close();
  }
}

/** Terminal control sequences and other bytes that a message should not carry. */
const controls = /\x1b\[[0-9;?=]*[A-Za-z]|\x1b[()][0-9A-B]|[^\x09\x0a\x20-\x7e\u00a0-\uffff]/g;

/** The last non-empty lines of a file, without control characters. */
export async function lastLines(path: string, count: number): Promise<string> {
  const { text } = await textFrom(path, 0);
  const lines = text
    .replaceAll("\r", "\n")
    .replaceAll(controls, "")
    .split("\n")
    .filter((line) => line.trim() !== "");
  return lines.slice(-count).join("\n");
}
