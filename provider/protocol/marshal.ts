/**
 * Converts values between the engine's wire format and the form that resources use. On the wire, secrets and outputs
 * are objects with a signature and unknown values are sentinel strings (pulumi/sdk/go/common/resource/plugin/rpc.go).
 * Resources get plain values: the paths of secret values are kept apart, and they are marked again on the way back.
 * Palisade's schema has no assets and archives. They stay the objects that they are on the wire, and validation refuses
 * them by type.
 */
import { Struct, type JavaScriptValue, type Value as WireValue } from "google-protobuf/google/protobuf/struct_pb.js";
import { setOwn } from "../../shared/own-properties.js";
import { PropertyError } from "../backends/errors.js";
import { isUnknown, unknown, type Properties, type Value } from "./resource.js";

export const signatureKey = "4dabf18193072939515e22adb298388d";
const secretSignature = "1b47061264138c4ac30d75fd1eb44270";
const outputSignature = "d0e6a833031e9bbcd3f4e8bde6ca49a4";
const unknownString = "04da6b54-80e4-46f7-96ec-b56ff0331ba9";
const unknownSentinels = new Set([
  unknownString,
  "1c4a061d-8072-4f0a-a4cb-0ff528b18fe7",
  "3eeb2bf0-c639-47a8-9e75-3b44932eb421",
  "6a19a0b0-7e62-4c92-b797-7f8e31da9cc2",
  "030794c1-ac77-496b-92df-f27374a8bd58",
  "e48ece36-62e2-4504-bad9-02848725956a",
  "dd056dcd-154b-4c76-9bd3-c8f88648b5ff",
]);

export type Path = readonly (string | number)[];

/** Paths of values that are secret. Everything below a secret value is secret too. */
export class SecretPaths {
  private readonly keys = new Set<string>();

  add(path: Path): void {
    this.keys.add(JSON.stringify(path));
  }

  /** True when exactly this path is secret. */
  has(path: Path): boolean {
    return this.keys.has(JSON.stringify(path));
  }

  /**
   * True when this path, or any value below it, is secret. A value that is unknown as a whole then counts as secret.
   */
  reaches(path: Path): boolean {
    const prefix = JSON.stringify(path).slice(0, -1);
    return this.has(path) || [...this.keys].some((key) => path.length === 0 || key.startsWith(`${prefix},`));
  }

  paths(): Path[] {
    return [...this.keys].map((key) => JSON.parse(key) as Path);
  }
}

export interface Decoded {
  properties: Properties;
  secrets: SecretPaths;
}

/** Properties from the wire. An absent struct has none. */
export function decode(struct: Struct | undefined): Decoded {
  const secrets = new SecretPaths();
  refuseLostNames(struct, "");
  const wire = struct?.toJavaScript() ?? {};
  return { properties: decodeObject(wire, [], secrets), secrets };
}

/**
 * Refuses a property `__proto__`. The map of google-protobuf stores entries in an object by assignment: it loses this
 * one without an error, and the object gets another prototype.
 */
function refuseLostNames(struct: Struct | undefined, path: string): void {
  const fields = struct?.getFieldsMap();
  if (!fields) return;
  const isChanged = (part: unknown): boolean =>
    typeof part === "object" &&
    part !== null &&
    !Array.isArray(part) &&
    ![Object.prototype, null].includes(Object.getPrototypeOf(part) as object | null);
  if (Object.values(fields).some(isChanged)) {
    const reason = "no property can have this name, as it would be lost; choose another one";
    throw new PropertyError([{ property: path ? `${path}.__proto__` : "__proto__", reason }]);
  }
  const within = (value: WireValue, at: string): void => {
    if (value.hasStructValue()) refuseLostNames(value.getStructValue(), at);
    else if (value.hasListValue()) {
      value
        .getListValue()!
        .getValuesList()
        .forEach((item, index) => within(item, `${at}[${index}]`));
    }
  };
  fields.forEach((value, name) => within(value, path ? `${path}.${name}` : name));
}

function decodeObject(wire: Record<string, unknown>, path: Path, secrets: SecretPaths): Properties {
  const result: Properties = {};
  for (const [name, value] of Object.entries(wire)) setOwn(result, name, decodeValue(value, [...path, name], secrets));
  return result;
}

function decodeValue(wire: unknown, path: Path, secrets: SecretPaths): Value {
  if (typeof wire === "string") return unknownSentinels.has(wire) ? unknown : wire;
  if (Array.isArray(wire)) return wire.map((item, index) => decodeValue(item, [...path, index], secrets));
  if (typeof wire !== "object" || wire === null) return wire as Value;
  const object = wire as Record<string, unknown>;
  switch (object[signatureKey]) {
    case secretSignature:
      secrets.add(path);
      return decodeValue(object["value"], path, secrets);
    case outputSignature:
      if (object["secret"] === true) secrets.add(path);
      return "value" in object ? decodeValue(object["value"], path, secrets) : unknown;
    default:
      return decodeObject(object, path, secrets);
  }
}

/**
 * Properties for the wire. Properties that are undefined are left out.
 *
 * @param isSecret whether the schema marks a path as secret, beside `secrets`
 */
export function encode(
  properties: Properties,
  secrets: SecretPaths = new SecretPaths(),
  isSecret: (path: Path) => boolean = () => false,
): Struct {
  const plain = (value: Value): unknown => {
    if (isUnknown(value)) return unknownString;
    if (Array.isArray(value)) return value.map(plain);
    return typeof value === "object" && value !== null ? object(value, [], (child) => plain(child)) : value;
  };
  const marked = (value: Value, path: Path): unknown => {
    if (secrets.has(path) || isSecret(path) || (isUnknown(value) && secrets.reaches(path))) {
      return { [signatureKey]: secretSignature, value: plain(value) };
    }
    if (Array.isArray(value)) return value.map((item, index) => marked(item, [...path, index]));
    if (typeof value === "object" && value !== null && !isUnknown(value)) return object(value, path, marked);
    return plain(value);
  };
  return Struct.fromJavaScript(object(properties, [], marked) as { [key: string]: JavaScriptValue });
}

function object(
  properties: Properties,
  path: Path,
  each: (value: Value, path: Path) => unknown,
): Record<string, unknown> {
  const result: Record<string, unknown> = {};
  for (const [name, value] of Object.entries(properties)) {
    if (value !== undefined) setOwn(result, name, each(value, [...path, name]));
  }
  return result;
}
