/** Rules that several resources share. Each reports the path, the value and what is allowed; unknown values pass. */
import { dnsLabelPattern, isDnsLabel } from "../../shared/dns-label.js";
import {
  parseImageReference,
  repositoryProblem,
  serverProblem,
  type ImageReference,
} from "../../shared/image-reference.js";
import { channelTagPrefix } from "../backends/index.js";
import type { CheckFailure } from "../backends/errors.js";
import { isUnknown, type Properties, type Value } from "../protocol/resource.js";
import { isRecord, show } from "../schema/schema.js";

/** What is wrong with the path of a file in a layer; undefined when nothing is. */
export function layerPathTrouble(path: string): string | undefined {
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

export class Rules {
  constructor(readonly failures: CheckFailure[]) {}

  fail(property: string, reason: string): void {
    this.failures.push({ property, reason });
  }

  range(property: string, value: Value | undefined, minimum: number, maximum: number, unit = ""): void {
    if (typeof value !== "number" || (value >= minimum && value <= maximum)) return;
    this.fail(property, `${value} is out of range: ${minimum} to ${maximum}${unit && ` ${unit}`}`);
  }

  oneOf(property: string, value: Value | undefined, allowed: string[]): void {
    if (typeof value !== "string" || allowed.includes(value)) return;
    this.fail(property, `${show(value)} is not one of ${allowed.join(", ")}`);
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
    this.oneOf(property, value, ["TCP", "UDP"]);
  }

  server(property: string, value: Value | undefined): void {
    this.grammar(property, value, serverProblem);
  }

  /** @param problem says what is wrong with a value; undefined when nothing is. */
  grammar(property: string, value: Value | undefined, problem: (value: string) => string | undefined): void {
    const reason = typeof value === "string" ? problem(value) : undefined;
    if (reason) this.fail(property, `${show(value)} ${reason}`);
  }

  hypervisor(inputs: Properties): void {
    const uri = isRecord(inputs["hypervisor"]) ? inputs["hypervisor"]["uri"] : undefined;
    if (typeof uri === "string" && uri !== "local") {
      this.fail(
        "hypervisor.uri",
        `${show(uri)}: only \`local\`, QEMU on the machine that runs Pulumi, works in this version`,
      );
    }
  }

  /** Reports the second of two equal keys in a list; `key` gives undefined for what is not known. */
  unique(property: string, list: Value | undefined, what: string, key: (item: Properties) => string | undefined): void {
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

/** The known objects of a list. */
export function items(list: Value | undefined): Properties[] {
  return Array.isArray(list) ? list.filter(isRecord) : [];
}

export function text(value: Value | undefined): string | undefined {
  return typeof value === "string" ? value : undefined;
}

/** `<host id>/<name>`: the id of what has a name on a host. A text with more parts is no id. */
export function hostedId(resource: string, what: string, id: string): { hostId: string; name: string } {
  const [hostId = "", name = "", ...others] = id.split("/");
  if (hostIdPattern.test(hostId) && isDnsLabel(name) && others.length === 0) return { hostId, name };
  throw new Error(`${id}: the id of ${resource} is <host id>/<${what} name>`);
}

/** The id of what a host has one of: the host's own. */
export function hostId(resource: string, id: string): string {
  if (hostIdPattern.test(id)) return id;
  throw new Error(`${id}: the id of ${resource} is <host id>`);
}

const hostIdPattern = /^[A-Za-z0-9][A-Za-z0-9._-]{0,127}$/;

/** `<server>/<repository>@<digest>`: the id of what belongs to an image, and everything that an import needs to know. */
export function imageId(resource: string, id: string): ImageReference {
  try {
    return parseImageReference(id);
  } catch (error) {
    const form = "<server>/<repository>@sha256:<64 hexadecimal digits>";
    throw new Error(`${id}: the id of a ${resource} is ${form}: ${(error as Error).message}`);
  }
}

/** `port/protocol` of an entry, undefined while either is unknown. */
export function portKey(item: Properties): string | undefined {
  const { port, protocol } = item;
  return typeof port === "number" && typeof protocol === "string" ? `${port}/${protocol}` : undefined;
}

export function anyUnknown(value: Value | undefined): boolean {
  if (isUnknown(value)) return true;
  if (Array.isArray(value)) return value.some(anyUnknown);
  return isRecord(value) && Object.values(value).some(anyUnknown);
}
