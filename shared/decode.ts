/**
 * Data of others, such as what registries answer, files hold and programs print: read by a schema, so that what does
 * not fit is told with its place and the path of the field. Values are not repeated in errors, as they may be secret.
 */
import * as v from "valibot";

/** What others hold or answer is not what it should be. */
export class ForeignDataError extends Error {
  override readonly name = "ForeignDataError";
}

/**
 * The result of reading one of several things; undefined when it is not what it should be, so that it hides no other.
 */
export async function unlessBroken<T>(read: () => Promise<T>): Promise<T | undefined> {
  try {
    return await read();
  } catch (error) {
    if (error instanceof ForeignDataError) return undefined;
    throw error;
  }
}

/** valibot's own objects and records take lists as well. */
const noList = v.custom<object>((value) => typeof value === "object" && value !== null && !Array.isArray(value));

/** An object with these fields; others are kept. */
export const object = <T extends v.ObjectEntries>(fields: T) => v.pipe(noList, v.looseObject(fields));

/** An object with any names. */
export const record = <T extends v.GenericSchema>(value: T) => v.pipe(noList, v.record(v.string(), value));

/**
 * Reads JSON that fits a schema.
 *
 * @param place where it is from: a file, an address or a program's name.
 * @throws when it is no JSON, has a name twice in one object, or does not fit.
 */
export function decode<S extends v.GenericSchema>(
  schema: S,
  content: string | Uint8Array,
  place: string,
): v.InferOutput<S> {
  return fit(schema, parseJson(content, place), place);
}

/** The value as the schema gives it. @throws when it does not fit. */
export function fit<S extends v.GenericSchema>(schema: S, value: unknown, place: string): v.InferOutput<S> {
  const result = v.safeParse(schema, value);
  if (result.success) return result.output;
  const [issue] = result.issues;
  const path = v.getDotPath(issue);
  const expected = issue.type === "custom" ? "Object" : issue.expected;
  const expectation = issue.kind === "schema" && expected ? `expected ${expected}` : issue.message;
  throw new ForeignDataError(`${place}: ${path ? `${path}: ` : ""}${expectation}, found ${kindOf(issue.input)}`);
}

/** Those items of a list that fit: one that does not hides none that does. What is no list has none. */
export function fitting<S extends v.GenericSchema>(schema: S, list: unknown): v.InferOutput<S>[] {
  if (!Array.isArray(list)) return [];
  return list.flatMap((item) => {
    const result = v.safeParse(schema, item);
    return result.success ? [result.output] : [];
  });
}

function kindOf(value: unknown): string {
  if (value === undefined) return "nothing";
  if (value === null) return "null";
  if (Array.isArray(value)) return "a list";
  return typeof value === "object" ? "an object" : `a ${typeof value}`;
}

/** @throws when it is no JSON, or has a name twice in one object: other readers might take the other one. */
export function parseJson(content: string | Uint8Array, place: string): unknown {
  const text = typeof content === "string" ? content : Buffer.from(content).toString();
  let value: unknown;
  try {
    value = JSON.parse(text) as unknown;
  } catch {
    // The parser's own message repeats a part of the content.
    throw new ForeignDataError(`${place}: ${describe(text)}`);
  }
  const repeated = repeatedName(text);
  if (repeated !== undefined)
    throw new ForeignDataError(`${place}: ${JSON.stringify(repeated)} is there twice in one object`);
  return value;
}

function describe(text: string): string {
  if (text.trim() === "") return "is empty where JSON is expected";
  if (text.trimStart().startsWith("<")) return "is HTML or XML where JSON is expected";
  return "is no JSON, or was cut off";
}

function repeatedName(text: string): string | undefined {
  // Names of each object that is open; undefined for a list.
  const open: (Set<string> | undefined)[] = [];
  let isName = false;
  for (const [token] of text.matchAll(/"[^"\\]*(?:\\.[^"\\]*)*"|[{}[\],]/g)) {
    if (token === "{" || token === "[") {
      isName = token === "{";
      open.push(isName ? new Set() : undefined);
    } else if (token === "}" || token === "]") {
      open.pop();
      isName = false;
    } else if (token === ",") {
      isName = open.at(-1) !== undefined;
    } else if (isName) {
      const name = JSON.parse(token) as string;
      if (open.at(-1)!.has(name)) return name;
      open.at(-1)!.add(name);
      isName = false;
    }
  }
  return undefined;
}
