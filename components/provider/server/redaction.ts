/** Secret values kept out of messages: a rule's or a backend's message may quote the value that it complains about. */
import { isUnknown, type Properties, type Value } from "../resource.js";
import type { Path, SecretPaths } from "./marshal.js";

/** Shorter ones are found in ordinary words; they could not be kept out of a message without spoiling it. */
const shortest = 4;
/** A message may hold only the beginning of a long value. */
const prefixLength = 16;

/**
 * The texts at and below secret paths, the longest first.
 * @param isShown what messages may quote all the same
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
    if (typeof value === "string") {
      if (secret && value.length >= shortest && !isShown(path))
        found.add(value).add(JSON.stringify(value).slice(1, -1));
    } else if (Array.isArray(value)) {
      value.forEach((item, index) => visit(item, [...path, index], secret));
    } else if (typeof value === "object" && value !== null && !isUnknown(value)) {
      for (const [name, item] of Object.entries(value)) visit(item, [...path, name], secret);
    }
  };
  visit(properties, [], false);
  return [...found].sort((a, b) => b.length - a.length);
}

/** The message with `[secret]` in place of each secret text and of each longer beginning of one. */
export function redact(message: string, texts: string[]): string {
  let result = message;
  for (const text of texts) {
    const needle = text.slice(0, Math.max(shortest, Math.min(text.length, prefixLength)));
    for (let at = result.indexOf(needle); at >= 0; at = result.indexOf(needle, at + 1)) {
      let length = needle.length;
      while (length < text.length && result[at + length] === text[length]) length++;
      result = `${result.slice(0, at)}[secret]${result.slice(at + length)}`;
    }
  }
  return result;
}
