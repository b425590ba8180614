/**
 * Validation by a Pulumi schema: types, required and unknown properties, defaults. What a schema cannot express is
 * checked by each resource itself.
 */
import { readFileSync } from "node:fs";
import path from "node:path";
import { packageRoot } from "../../shared/directories.js";
import { own } from "../../shared/own-properties.js";
import { shorten } from "../../shared/text.js";
import type { CheckFailure } from "../backends/errors.js";
import { isUnknown, unknown, type Properties, type Value } from "../protocol/resource.js";

export interface PropertySpec {
  type?: "string" | "integer" | "number" | "boolean" | "array" | "object";
  $ref?: string;
  items?: PropertySpec;
  additionalProperties?: PropertySpec;
  default?: Value;
  secret?: boolean;
}
interface ObjectSpec {
  properties: Record<string, PropertySpec>;
  required?: string[];
  /** The allowed values of a type that is an enumeration of strings. */
  enum?: { value: string }[];
}
interface ResourceSpec extends ObjectSpec {
  inputProperties: Record<string, PropertySpec>;
  requiredInputs?: string[];
}
export interface PackageSchema {
  name: string;
  version: string;
  types: Record<string, ObjectSpec>;
  resources: Record<string, ResourceSpec>;
  functions?: Record<string, { inputs: ObjectSpec; outputs: ObjectSpec }>;
  provider?: { inputProperties?: Record<string, PropertySpec> };
}

/** The schema as it is served. */
export const schemaText = readFileSync(path.join(packageRoot(), "provider/schema.json"), "utf8");
export const packageSchema = JSON.parse(schemaText) as PackageSchema;

const typeReference = "#/types/";

/** The number of letters to insert, remove or change to get from one word to another. */
function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, index) => index);
  for (let i = 1; i <= a.length; i++) {
    const row = [i];
    for (let j = 1; j <= b.length; j++) {
      row[j] = Math.min(previous[j]! + 1, row[j - 1]! + 1, previous[j - 1]! + (a[i - 1] === b[j - 1] ? 0 : 1));
    }
    previous = row;
  }
  return previous[b.length]!;
}

function suggestion(name: string, known: string[]): string {
  const near = known
    .map((candidate) => ({ candidate, distance: editDistance(name.toLowerCase(), candidate.toLowerCase()) }))
    .filter(({ distance }) => distance <= Math.max(2, name.length / 3))
    .sort((a, b) => a.distance - b.distance)[0];
  return near ? `did you mean \`${near.candidate}\`?` : `known are ${known.map((one) => `\`${one}\``).join(", ")}`;
}

/** How a value appears in a message. A long value is cut. Never called with a secret value. */
export function show(value: Value | undefined): string {
  return shorten(JSON.stringify(value) ?? "nothing", 80);
}

/** Types of Pulumi's own schema: any value, assets and archives. They are not validated. */
const pulumiReference = "pulumi.json#/";

class Validator {
  readonly failures: CheckFailure[] = [];

  /** @param allowsOtherNames whether a property that the schema does not know is left out instead of refused */
  constructor(
    private readonly schema: PackageSchema,
    private readonly allowsOtherNames = false,
  ) {}

  /**
   * The properties with defaults filled in. A value that does not fit is reported, and is unknown in the result: so the
   * result has the types of the schema, and no later rule reports the same value again.
   */
  object(path: string, value: Properties, spec: ObjectSpec): Properties {
    const result: Properties = {};
    const known = Object.keys(spec.properties);
    for (const [name, child] of Object.entries(value)) {
      // The engine's own bookkeeping, such as __internal.
      if (name.startsWith("__") && name !== "__proto__") continue;
      const at = path ? `${path}.${name}` : name;
      const childSpec = own(spec.properties, name);
      if (!childSpec) {
        if (this.allowsOtherNames) continue;
        this.failures.push({
          property: at,
          reason: `there is no property \`${name}\` here; ${suggestion(name, known)}`,
        });
      } else if (child !== null) {
        result[name] = this.value(at, child, childSpec);
      }
    }
    for (const [name, childSpec] of Object.entries(spec.properties)) {
      if (own(result, name) !== undefined) continue;
      const at = path ? `${path}.${name}` : name;
      if (childSpec.default !== undefined) result[name] = childSpec.default;
      else if (spec.required?.includes(name)) {
        this.failures.push({ property: at, reason: "is required and was not given" });
        result[name] = unknown;
      }
    }
    return result;
  }

  private value(path: string, value: Value, spec: PropertySpec): Value {
    if (isUnknown(value)) return value;
    const wrong = (expected: string): Value => {
      const shown = spec.secret ? "a secret value" : show(value);
      this.failures.push({ property: path, reason: `${shown} is not ${expected}` });
      return unknown;
    };
    if (spec.$ref?.startsWith(pulumiReference)) return value;
    if (spec.$ref) {
      const type = own(this.schema.types, spec.$ref.slice(typeReference.length));
      if (!type) throw new Error(`the schema has no type ${spec.$ref}`);
      if (type.enum) {
        const allowed = type.enum.map((one) => one.value);
        return allowed.includes(value as string) ? value : wrong(`one of ${allowed.join(", ")}`);
      }
      return isRecord(value) ? this.object(path, value, type) : wrong("an object");
    }
    switch (spec.type) {
      case "array":
        if (!Array.isArray(value)) return wrong("a list");
        return value.map((item, index) => this.value(`${path}[${index}]`, item, spec.items!));
      case "object":
        if (!isRecord(value)) return wrong("an object");
        return Object.fromEntries(
          Object.entries(value).map(([name, item]) => [
            name,
            this.value(`${path}[${JSON.stringify(name)}]`, item, spec.additionalProperties!),
          ]),
        );
      case "integer":
        return typeof value === "number" && Number.isInteger(value) ? value : wrong("a whole number");
      case "number":
        return typeof value === "number" && Number.isFinite(value) ? value : wrong("a number");
      case "string":
        return typeof value === "string" ? value : wrong("a string");
      case "boolean":
        return typeof value === "boolean" ? value : wrong("true or false");
      default:
        throw new Error(`the schema gives ${path} no type`);
    }
  }
}

export function isRecord(value: Value | undefined): value is Properties {
  return typeof value === "object" && value !== null && !Array.isArray(value) && !isUnknown(value);
}

export function anyUnknown(value: Value | undefined): boolean {
  if (isUnknown(value)) return true;
  if (Array.isArray(value)) return value.some(anyUnknown);
  return isRecord(value) && Object.values(value).some(anyUnknown);
}

/** Inputs or arguments with defaults filled in, and everything in which they do not fit the schema. */
export interface Validated {
  /** A value that does not fit is unknown here. */
  inputs: Properties;
  failures: CheckFailure[];
}

/**
 * Validates the inputs of a resource.
 *
 * @param schema default: Palisade's own
 * @param allowsOtherNames whether a property that the schema does not know is left out instead of refused. Default:
 * refused
 */
export function validate(
  type: string,
  inputs: Properties,
  schema = packageSchema,
  allowsOtherNames = false,
): Validated {
  const spec = own(schema.resources, type);
  if (!spec) throw new Error(`${type}: not in the schema`);
  const validator = new Validator(schema, allowsOtherNames);
  const checked = validator.object("", inputs, { properties: spec.inputProperties, required: spec.requiredInputs });
  return { inputs: checked, failures: validator.failures };
}

/** Validates the arguments of a function. */
export function validateFunction(schema: PackageSchema, token: string, inputs: Properties): Validated {
  const spec = own(schema.functions, token);
  if (!spec) throw new Error(`${token}: not in the schema`);
  const validator = new Validator(schema);
  return { inputs: validator.object("", inputs, spec.inputs), failures: validator.failures };
}

/** Validates a provider's configuration. */
export function validateConfiguration(schema: PackageSchema, inputs: Properties): Validated {
  const validator = new Validator(schema);
  const checked = validator.object("", inputs, { properties: schema.provider?.inputProperties ?? {} });
  return { inputs: checked, failures: validator.failures };
}
