/**
 * Keeps secret values out of messages: an error of a rule, of a backend or of a command may quote the value that it is
 * about.
 *
 * A message is compared with each secret as it is, line by line, in base64 and in hexadecimal, and again after the
 * message's own escapes (JSON, Go, URL, HTML) are undone and after its white space is removed. All matches are found
 * before any is replaced, so secrets that overlap, or occur in the replacement, do no harm.
 *
 * The agent does the same in Go: hosts/redact. Both pass the cases in hosts/redact/testdata/cases.json.
 */
import { isUnknown, type Properties, type Value } from "./resource.js";
import type { Path, SecretPaths } from "./marshal.js";

const replacement = "[secret]";
/** Shorter secrets occur in ordinary words. They are replaced only where no letter or digit adjoins them. */
const shortest = 4;
/** Any stretch of this many characters of a longer secret is replaced: a message may quote a part of it. */
const stretch = 16;
/** Shorter pieces of base64 and hexadecimal text could be ordinary words. */
const shortestEncoded = 5;
/** Encoded forms are prepared for this many characters of a secret, to limit the memory. */
const longestEncoded = 8 * 1024;
/** A message that quotes another one adds a level of escapes. */
const escapeLevels = 4;
/** Widths at which `openssl` and `base64` wrap lines. */
const base64Widths = [64, 76];

/**
 * The texts and numbers at and below secret paths, the longest first.
 *
 * @param isShown whether messages may show the value at a path
 */
export function secretTexts(
  properties: Properties,
  secrets: SecretPaths,
  isSecret: (path: Path) => boolean,
  isShown: (path: Path) => boolean = () => false,
): string[] {
  const found = new Set<string>();
  const visit = (value: Value | undefined, path: Path, inside: boolean): void => {
    const secret = inside || (path.length > 0 && (secrets.has(path) || isSecret(path)));
    if (typeof value === "string" || typeof value === "number") {
      if (secret && value !== "" && !isShown(path)) found.add(String(value));
    } else if (Array.isArray(value)) {
      value.forEach((item, index) => visit(item, [...path, index], secret));
    } else if (typeof value === "object" && value !== null && !isUnknown(value)) {
      for (const [name, item] of Object.entries(value)) visit(item, [...path, name], secret);
    }
  };
  visit(properties, [], false);
  return [...found].sort((a, b) => b.length - a.length);
}

/** The message with `[secret]` in place of each of the texts, in all forms in which it occurs. */
export function redact(message: string, texts: Iterable<string>): string {
  return new Redactor(texts).redact(message);
}

/** How far a match reaches beyond its own characters. */
interface Reach {
  /** The base64 character before the match encodes the secret's first bits together with the text before it. */
  left?: boolean;
  /** The base64 character after the match encodes the secret's last bits together with the text after it. */
  right?: boolean;
  /** Padding of base64 belongs to the match. */
  padding?: boolean;
  /** The match includes a character on each side, which stays. */
  inset?: boolean;
  /** The match counts only where no letter or digit adjoins it. */
  alone?: boolean;
}
const exact: Reach = {};

/** Texts to look for, by their length. */
class Needles {
  private readonly byLength = new Map<number, Map<string, Reach>>();

  add(text: string, reach = exact): void {
    if (text.length <= stretch) return this.set(text, reach);
    const last = text.length - stretch;
    for (let at = 0; at <= last; at++) {
      const edge = { left: at === 0 && reach.left, right: at === last && reach.right };
      const padding = at === last && reach.padding;
      this.set(text.slice(at, at + stretch), edge.left || edge.right || padding ? { ...edge, padding } : exact);
    }
  }

  private set(text: string, reach: Reach): void {
    let needles = this.byLength.get(text.length);
    if (!needles) this.byLength.set(text.length, (needles = new Map<string, Reach>()));
    const known = needles.get(text);
    if (!known || known.alone) needles.set(text, reach);
  }

  /** Calls `found` for each occurrence in the text. */
  find(text: string, found: (start: number, end: number) => void): void {
    for (const [length, needles] of this.byLength) {
      for (let at = 0; at + length <= text.length; at++) {
        const reach = needles.get(text.slice(at, at + length));
        if (!reach) continue;
        let [start, end] = [at, at + length];
        if (reach.alone && (isWord(text[start - 1]) || isWord(text[end]))) continue;
        if (reach.inset) [start, end] = [start + 1, end - 1];
        if (reach.left && isBase64(text[start - 1])) start--;
        if (reach.right && isBase64(text[end])) end++;
        if (reach.padding) while (text[end] === "=") end++;
        found(start, end);
      }
    }
  }
}

const isWord = (character: string | undefined): boolean => character !== undefined && /[\p{L}\p{N}]/u.test(character);
const isBase64 = (character: string | undefined): boolean => character !== undefined && /[\w+/-]/.test(character);

/** Replaces a set of secrets. The forms to look for are prepared at the first message. */
export class Redactor {
  private prepared: { plain: Needles; dense: Needles; beginnings: Set<string> } | undefined;

  constructor(private readonly texts: Iterable<string>) {}

  redact(message: string): string {
    this.prepared ??= prepare(this.texts);
    const { plain, dense, beginnings } = this.prepared;
    const spans: [number, number][] = [];
    const look = (layer: Layer, needles: Needles): void =>
      needles.find(layer.text, (start, end) => spans.push([layer.starts[start]!, layer.ends[end - 1]!]));
    let layer = plainLayer(message);
    look(withoutSpace(layer), dense);
    for (let level = 0; ; level++) {
      look(layer, plain);
      for (const [start, end] of cutBeginnings(layer.text, beginnings)) {
        spans.push([layer.starts[start]!, layer.ends[end - 1]!]);
      }
      const next = level < escapeLevels ? unescaped(layer) : layer;
      if (next === layer) {
        if (level > 0) look(withoutSpace(layer), dense);
        break;
      }
      layer = next;
    }
    return replaced(message, spans);
  }
}

function prepare(texts: Iterable<string>): { plain: Needles; dense: Needles; beginnings: Set<string> } {
  const [plain, dense, beginnings] = [new Needles(), new Needles(), new Set<string>()];
  const addText = (text: string): void => {
    plain.add(text);
    if (text.includes(" ")) plain.add(text.replaceAll(" ", "+"));
    for (let length = shortest; length < Math.min(stretch, text.length); length++) {
      beginnings.add(text.slice(0, length));
    }
  };
  const addDense = (text: string, always: boolean): void => {
    const packed = pack(text);
    if (packed.length >= (always ? shortest : stretch)) dense.add(packed);
  };
  for (const text of new Set(texts)) {
    if (text === "") continue;
    if (text.length < shortest) {
      for (const quote of `"'\``) plain.add(`${quote}${text}${quote}`, { inset: true });
      // A word of a few letters occurs in any message.
      if (!/^\p{L}+$/u.test(text)) plain.add(text, { alone: true });
      continue;
    }
    for (const form of new Set([text, unescapedFully(text)])) {
      if (form.length < shortest) continue;
      const lines = form.split(/[\r\n]+/).map((line) => line.trim());
      addText(form);
      if (lines.length > 1) lines.filter((line) => line.length >= shortest).forEach(addText);
      addDense(form, lines.length > 1);
    }
    for (const form of new Set([text, text.trim()])) {
      for (const [encoded, reach] of encodings(form.slice(0, longestEncoded))) {
        plain.add(encoded, reach);
        // Base64 is wrapped into lines.
        if (reach.padding) addDense(encoded, false);
      }
    }
  }
  return { plain, dense, beginnings };
}

/** A text in hexadecimal, and in base64 at each of the three offsets that it can have in a longer encoded text. */
function* encodings(text: string): Generator<[string, Reach]> {
  const bytes = Buffer.from(text, "utf8");
  if (bytes.length < shortest) return;
  const variants = (encoded: string) =>
    new Set(
      [encoded, encoded.replaceAll("+", "-").replaceAll("/", "_")].filter((one) => one.length >= shortestEncoded),
    );
  for (const before of [0, 1, 2]) {
    const encoded = Buffer.concat([Buffer.alloc(before), bytes])
      .toString("base64")
      .replace(/=+$/, "");
    const bits = (before + bytes.length) * 8;
    const inside = encoded.slice(Math.ceil((before * 8) / 6), Math.floor(bits / 6));
    for (const one of variants(inside)) yield [one, { left: before > 0, right: bits % 6 !== 0, padding: true }];
    if (before > 0) continue;
    for (const one of variants(encoded)) yield [one, { padding: true }];
    for (const width of base64Widths.filter((one) => one < encoded.length)) {
      const lastLine = encoded.slice(Math.floor((encoded.length - 1) / width) * width);
      for (const one of variants(lastLine)) yield [one, { padding: true }];
    }
  }
  const hex = bytes.toString("hex");
  yield [hex, exact];
  yield [hex.toUpperCase(), exact];
}

/** A text made from a message, with the place in the message from which each of its characters comes. */
interface Layer {
  text: string;
  starts: number[];
  ends: number[];
}

function plainLayer(text: string): Layer {
  const starts = Array.from({ length: text.length }, (_, index) => index);
  return { text, starts, ends: starts.map((at) => at + 1) };
}

const space = /[ \t\n\v\f\r]/;
const pack = (text: string): string => text.replace(/[ \t\n\v\f\r]+/g, "");

function withoutSpace(layer: Layer): Layer {
  const kept = layer.starts.map((_, index) => index).filter((index) => !space.test(layer.text[index]!));
  return {
    text: kept.map((index) => layer.text[index]).join(""),
    starts: kept.map((index) => layer.starts[index]!),
    ends: kept.map((index) => layer.ends[index]!),
  };
}

const escapes =
  /\\(?:u\{([\da-fA-F]{1,6})\}|u([\da-fA-F]{4})|U([\da-fA-F]{8})|x([\da-fA-F]{2})|([0-3][0-7]{2})|([abfnrtv0"'`\\/]))|%([\da-fA-F]{2})|&(?:#x([\da-fA-F]{1,6})|#(\d{1,7})|(quot|apos|amp|lt|gt));/g;
const controls: Record<string, string> = { a: "\x07", b: "\b", f: "\f", n: "\n", r: "\r", t: "\t", v: "\v", 0: "\0" };
const entities: Record<string, string> = { quot: '"', apos: "'", amp: "&", lt: "<", gt: ">" };

/** The layer with one level of escapes undone; the same layer when there is none. */
function unescaped(layer: Layer): Layer {
  const matches = [...layer.text.matchAll(escapes)];
  if (matches.length === 0) return layer;
  const result: Layer = { text: "", starts: [], ends: [] };
  const parts: string[] = [];
  const put = (text: string, start: number, end: number): void => {
    parts.push(text);
    for (let index = 0; index < text.length; index++) {
      result.starts.push(layer.starts[start]!);
      result.ends.push(layer.ends[end - 1]!);
    }
  };
  let bytes: { value: number; start: number; end: number }[] = [];
  const putBytes = (): void => {
    for (let at = 0; at < bytes.length;) {
      const length = sequenceLength(bytes.slice(at, at + 4).map(({ value }) => value));
      const sequence = bytes.slice(at, at + Math.max(length, 1));
      const text = length
        ? Buffer.from(sequence.map(({ value }) => value)).toString("utf8")
        : String.fromCharCode(sequence[0]!.value);
      put(text, sequence[0]!.start, sequence.at(-1)!.end);
      at += sequence.length;
    }
    bytes = [];
  };
  let copied = 0;
  for (const match of matches) {
    const [start, end] = [match.index, match.index + match[0].length];
    if (copied < start) putBytes();
    for (; copied < start; copied++) put(layer.text[copied]!, copied, copied + 1);
    copied = end;
    const [, braced, short, long, hex, octal, control, percent, entityHex, entityDecimal, entity] = match;
    const byte = hex ?? percent;
    if (byte !== undefined || octal !== undefined) {
      bytes.push({ value: byte === undefined ? parseInt(octal!, 8) : parseInt(byte, 16), start, end });
      continue;
    }
    putBytes();
    const digits = braced ?? short ?? long ?? entityHex;
    if (digits !== undefined) put(fromCodePoint(parseInt(digits, 16)), start, end);
    else if (entityDecimal !== undefined) put(fromCodePoint(parseInt(entityDecimal, 10)), start, end);
    else if (entity !== undefined) put(entities[entity]!, start, end);
    else put(controls[control!] ?? control!, start, end);
  }
  putBytes();
  for (; copied < layer.text.length; copied++) put(layer.text[copied]!, copied, copied + 1);
  result.text = parts.join("");
  return result;
}

const fromCodePoint = (value: number): string => (value <= 0x10ffff ? String.fromCodePoint(value) : "\ufffd");

/** Bytes of the character in UTF-8 at the beginning; 0 when there is none. */
function sequenceLength(bytes: number[]): number {
  const first = bytes[0]!;
  const length = first < 0x80 ? 1 : first < 0xc2 ? 0 : first < 0xe0 ? 2 : first < 0xf0 ? 3 : first < 0xf5 ? 4 : 0;
  const text = Buffer.from(bytes.slice(0, length)).toString("utf8");
  return bytes.length >= length && !text.includes("\ufffd") ? length : 0;
}

function unescapedFully(text: string): string {
  let layer = plainLayer(text);
  for (let level = 0; level < escapeLevels; level++) {
    const next = unescaped(layer);
    if (next === layer) break;
    layer = next;
  }
  return layer.text;
}

/** Beginnings of secrets that a message cuts off with `…` or `...`. */
function* cutBeginnings(text: string, beginnings: Set<string>): Generator<[number, number]> {
  for (const { index: end } of text.matchAll(/…|\.\.\./g)) {
    for (let length = Math.min(stretch - 1, end); length >= shortest; length--) {
      if (beginnings.has(text.slice(end - length, end))) {
        yield [end - length, end];
        break;
      }
    }
  }
}

/**
 * The message with its spans replaced. Spans that overlap or adjoin are replaced as one. White space around a secret
 * stays, and so does a replacement from before.
 */
function replaced(message: string, spans: [number, number][]): string {
  if (spans.length === 0) return message;
  const done = [...message.matchAll(/\[secret\]/g)].map(({ index }) => [index, index + replacement.length] as const);
  const open = spans.filter(([start, end]) => !done.some(([from, to]) => from <= start && end <= to));
  const merged: [number, number][] = [];
  for (let [start, end] of open.sort(([a], [b]) => a - b)) {
    // A span does not end within a character: another character may share one of its two halves.
    if (isLowSurrogate(message, start)) start++;
    if (isLowSurrogate(message, end)) end--;
    const last = merged.at(-1);
    if (last && start <= last[1]) last[1] = Math.max(last[1], end);
    else merged.push([start, end]);
  }
  const parts: string[] = [];
  let copied = 0;
  for (let [start, end] of merged) {
    while (start < end && space.test(message[start]!)) start++;
    while (start < end && space.test(message[end - 1]!)) end--;
    if (start >= end) continue;
    parts.push(message.slice(copied, start), replacement);
    copied = end;
  }
  parts.push(message.slice(copied));
  return parts.join("");
}

const isLowSurrogate = (text: string, at: number): boolean =>
  at > 0 && at < text.length && /^[\ud800-\udbff][\udc00-\udfff]$/.test(text.slice(at - 1, at + 1));
