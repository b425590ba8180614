/**
 * Rules that several resources share. Each reports the path, the value and what is allowed. An unknown value passes.
 */
import { dnsLabelPattern, isDnsLabel } from "../../shared/dns-label.js";
import {
  parseImageReference,
  repositoryProblem,
  serverProblem,
  type ImageReference,
} from "../../shared/image-reference.js";
import { channelTagPrefix } from "../backends/index.js";
import { PropertyError, type CheckFailure } from "../backends/errors.js";
import type { Properties, Unknown, Value } from "../protocol/resource.js";
import type { Previewed } from "../schema/decode.js";
import type { Hypervisor } from "../schema/inputs.js";
import { isRecord, show } from "../schema/schema.js";

/** What is wrong with the path of a file in a layer; undefined when nothing is. */
export function layerPathProblem(path: string): string | undefined {
  const parts = path.split("/").slice(1);
  if (!path.startsWith("/") || parts.some((part) => part === "" || part === "." || part === "..")) {
    return "is not an absolute path without '..', '.', '//' and '/' at its end";
  }
  if (path.includes("\0")) return "holds a zero byte, where a path ends";
  if (parts.some((part) => part.startsWith(".wh."))) {
    return "has a part that begins with .wh.: in a layer such a name removes a file of the layers below";
  }
  if (parts.some((part) => Buffer.byteLength(part) > 255) || Buffer.byteLength(path) > 4095) {
    return "is too long: a name has at most 255 bytes, a path 4095";
  }
  return undefined;
}

/** Protocols of a published port. */
export const protocols = ["TCP", "UDP"] as const;

function notAllowed(property: string, value: string, allowed: readonly string[]): CheckFailure {
  return { property, reason: `${show(value)} is not one of ${allowed.join(", ")}` };
}

/**
 * A string of the schema as one of the values that Check has allowed.
 *
 * @throws PropertyError when it is another one
 */
export function oneOf<T extends string>(property: string, value: string, allowed: readonly T[]): T {
  const found = allowed.find((candidate) => candidate === value);
  if (found === undefined) throw new PropertyError([notAllowed(property, value, allowed)]);
  return found;
}

/**
 * Ends a Check whose inputs hold something that is computed from files. A PropertyError of that becomes failures.
 *
 * @param known the inputs that passed the rules
 * @param compute returns the inputs to add
 */
export async function withComputed(
  known: Properties,
  compute: () => Promise<Properties>,
): Promise<{ inputs: Properties; failures: CheckFailure[] }> {
  try {
    return { inputs: { ...known, ...(await compute()) }, failures: [] };
  } catch (error) {
    if (!(error instanceof PropertyError)) throw error;
    return { inputs: known, failures: error.failures };
  }
}

export class Rules {
  constructor(readonly failures: CheckFailure[]) {}

  fail(property: string, reason: string): void {
    this.failures.push({ property, reason });
  }

  range(property: string, value: Value | undefined, minimum: number, maximum: number, unit = ""): void {
    if (typeof value !== "number" || (value >= minimum && value <= maximum)) return;
    this.fail(property, `${value} is out of range: ${minimum} to ${maximum}${unit && ` ${unit}`}`);
  }

  oneOf(property: string, value: Value | undefined, allowed: readonly string[]): void {
    if (typeof value !== "string" || allowed.includes(value)) return;
    this.failures.push(notAllowed(property, value, allowed));
  }

  matches(property: string, value: Value | undefined, pattern: RegExp, what: string): void {
    if (typeof value !== "string" || pattern.test(value)) return;
    this.fail(property, `${show(value)} is not ${what}`);
  }

  /** RFC 1123 label, as Kubernetes and ACI use for names. */
  dnsLabel(property: string, value: Value | undefined): void {
    this.matches(
      property,
      value,
      dnsLabelPattern,
      "a DNS label: 1 to 63 lower-case letters, digits and hyphens, beginning and ending with a letter or digit",
    );
  }

  digest(property: string, value: Value | undefined): void {
    this.matches(property, value, /^sha256:[0-9a-f]{64}$/, "a digest: sha256: and 64 hexadecimal digits");
  }

  repository(property: string, value: Value | undefined): void {
    this.grammar(property, value, repositoryProblem);
  }

  tag(property: string, value: Value | undefined): void {
    this.matches(property, value, /^\w[\w.-]{0,127}$/, "a tag: at most 128 letters, digits, '_', '.', '-'");
    if (typeof value === "string" && value.startsWith(channelTagPrefix)) {
      this.fail(
        property,
        `${show(value)}: tags with ${channelTagPrefix} are channels; publish into one by \`channel\``,
      );
    }
  }

  port(property: string, value: Value | undefined): void {
    this.range(property, value, 1, 65535);
  }

  protocol(property: string, value: Value | undefined): void {
    this.oneOf(property, value, protocols);
  }

  server(property: string, value: Value | undefined): void {
    this.grammar(property, value, serverProblem);
  }

  /** @param problem returns what is wrong with a value; undefined when nothing is. */
  grammar(property: string, value: Value | undefined, problem: (value: string) => string | undefined): void {
    const reason = typeof value === "string" ? problem(value) : undefined;
    if (reason) this.fail(property, `${show(value)} ${reason}`);
  }

  hypervisor(hypervisor: Unknown | Previewed<Hypervisor> | undefined): void {
    const uri = isRecord(hypervisor) ? hypervisor.uri : undefined;
    if (typeof uri === "string" && uri !== "local") {
      this.fail(
        "hypervisor.uri",
        `${show(uri)}: only \`local\`, QEMU on the machine that runs Pulumi, works in this version`,
      );
    }
  }

  /** Reports the second of two equal keys in a list. `key` returns undefined for an item whose key is not known. */
  unique<T extends Properties>(
    property: string,
    list: PreviewedList<T>,
    what: string,
    key: (item: T) => string | undefined,
  ): void {
    const seen = new Map<string, number>();
    for (const [index, item] of items(list).entries()) {
      const value = key(item);
      if (value === undefined) continue;
      const first = seen.get(value);
      if (first === undefined) seen.set(value, index);
      else this.fail(`${property}[${index}]`, `${what} ${value} is given twice, first in ${property}[${first}]`);
    }
  }
}

/** A list of objects in a preview. */
export type PreviewedList<T> = Unknown | (Unknown | T)[] | undefined;

/** The known objects of a list. */
export function items<T extends Properties>(list: PreviewedList<T>): T[];
export function items(list: Value | undefined): Properties[];
export function items(list: Value | undefined): Properties[] {
  return Array.isArray(list) ? list.filter(isRecord) : [];
}

/** The known strings of a list. */
export function strings(list: Value | undefined): string[] {
  return Array.isArray(list) ? list.filter((item) => typeof item === "string") : [];
}

/** The value when it is a string. */
export function text(value: Value | undefined): string | undefined {
  return typeof value === "string" ? value : undefined;
}

/**
 * Host and name from the id of a thing that has a name on its host: `<host id>/<name>`.
 *
 * @throws Error when the text has another form
 */
export function hostedId(resource: string, what: string, id: string): { hostId: string; name: string } {
  const [hostId = "", name = "", ...others] = id.split("/");
  if (hostIdPattern.test(hostId) && isDnsLabel(name) && others.length === 0) return { hostId, name };
  throw new Error(`${id}: the id of ${resource} is <host id>/<${what} name>`);
}

/**
 * Host from the id of a thing of which a host has one: `<host id>`.
 *
 * @throws Error when the text has another form
 */
export function hostId(resource: string, id: string): string {
  if (hostIdPattern.test(id)) return id;
  throw new Error(`${id}: the id of ${resource} is <host id>`);
}

const hostIdPattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;

/**
 * The parts of an id `<server>/<repository>@<digest>`, as things have that belong to an image. An import needs no more.
 *
 * @throws Error when the text has another form
 */
export function imageId(resource: string, id: string): ImageReference {
  try {
    return parseImageReference(id);
  } catch (error) {
    const form = "<server>/<repository>@sha256:<64 hexadecimal digits>";
    throw new Error(`${id}: the id of a ${resource} is ${form}: ${(error as Error).message}`);
  }
}

/** `port/protocol` of an entry, undefined while either is unknown. */
export function portKey({ port, protocol }: { port?: Value; protocol?: Value }): string | undefined {
  return typeof port === "number" && typeof protocol === "string" ? `${port}/${protocol}` : undefined;
}

/** The property value of an object that a backend returned. */
export function toValue(observed: object): Value {
  return JSON.parse(JSON.stringify(observed)) as Value;
}
