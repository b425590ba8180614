/** The schema, the handlers and the generated SDK agree. */
import { readFileSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Properties, Resource, Value } from "../protocol/resource.js";
import { resources } from "./index.js";
import { packageSchema, type PackageSchema } from "../schema/schema.js";
import { packageRoot } from "../../shared/directories.js";
import { Fixture } from "./testing.js";

type Spec = PackageSchema["types"][string];
type Property = Spec["properties"][string];

/** All ways in which a value does not fit the schema: unknown names, missing required ones, wrong types. */
function misfits(schema: PackageSchema, at: string, value: Value | undefined, spec: Property): string[] {
  if (spec.$ref) {
    const type = schema.types[spec.$ref.slice("#/types/".length)];
    return type ? objectMisfits(schema, at, value as Properties, type) : [`${at}: ${spec.$ref} is not in the schema`];
  }
  if (spec.type === "array") {
    if (!Array.isArray(value)) return [`${at}: not a list`];
    return value.flatMap((item, index) => misfits(schema, `${at}[${index}]`, item, spec.items!));
  }
  if (spec.type === "object") {
    return Object.entries(value as Properties).flatMap(([name, item]) =>
      misfits(schema, `${at}.${name}`, item, spec.additionalProperties!),
    );
  }
  const expected = spec.type === "integer" ? "number" : spec.type;
  return typeof value === expected ? [] : [`${at}: ${JSON.stringify(value)} is not of type ${spec.type}`];
}

function objectMisfits(schema: PackageSchema, at: string, value: Properties, spec: Spec): string[] {
  return [
    ...Object.keys(value)
      .filter((name) => !spec.properties[name])
      .map((name) => `${at}.${name}: not in the schema`),
    ...(spec.required ?? []).filter((name) => value[name] === undefined).map((name) => `${at}.${name}: missing`),
    ...Object.entries(value).flatMap(([name, item]) =>
      spec.properties[name] ? misfits(schema, `${at}.${name}`, item, spec.properties[name]) : [],
    ),
  ];
}

const lowerFirst = (text: string): string => text[0]!.toLowerCase() + text.slice(1);
const short = (type: string): string => type.slice(type.lastIndexOf(":") + 1);

/** The differences between a schema, the handlers' tokens, what they return, and the text of the SDK's classes. */
function disagreements(
  schema: PackageSchema,
  handlers: Resource[],
  outputs: Map<string, Properties>,
  sdk: (type: string) => string,
): string[] {
  const tokens = new Set([...Object.keys(schema.resources), ...handlers.map((handler) => handler.type)]);
  return [...tokens].flatMap((token) => {
    const spec = schema.resources[token];
    if (!spec) return [`${token}: has a handler and is not in the schema`];
    if (!handlers.some((handler) => handler.type === token)) return [`${token}: is in the schema and has no handler`];
    const source = sdk(token);
    const declared = [...source.matchAll(/declare public (?:\/\*out\*\/ )?readonly (\w+)[!?]?:/g)].map(
      (one) => one[1]!,
    );
    const inputs = [...source.matchAll(/resourceInputs\["(\w+)"\] = .*\bargs\??\.\1/g)].map((one) => one[1]!);
    return [
      ...objectMisfits(schema, token, outputs.get(token) ?? {}, spec),
      ...difference(`${token}: properties of the SDK`, declared, Object.keys(spec.properties)),
      ...difference(`${token}: arguments of the SDK`, inputs, Object.keys(spec.inputProperties)),
    ];
  });
}

function difference(what: string, a: string[], b: string[]): string[] {
  const left = [...new Set(a)].sort().join(", ");
  const right = [...new Set(b)].sort().join(", ");
  return left === right ? [] : [`${what}: ${left}; the schema's: ${right}`];
}

const sdkSource = (type: string): string =>
  readFileSync(path.join(packageRoot(), "sdk", `${lowerFirst(short(type))}.ts`), "utf8");

describe("schema, handlers and SDK", () => {
  const fixture = new Fixture();
  const outputs = new Map<string, Properties>();
  beforeAll(async () => {
    await fixture.start();
    for (const { type, state } of await fixture.makeAll()) outputs.set(type, state.outputs);
  });
  afterAll(() => fixture.stop());

  it("agree", () => {
    expect(disagreements(packageSchema, resources, outputs, sdkSource)).toEqual([]);
  });

  const mistakes: [string, (schema: PackageSchema) => void, RegExp][] = [
    [
      "a resource without a handler",
      (s) => void (s.resources["palisade:index:Castle"] = { properties: {}, inputProperties: {} }),
      /Castle: is in the schema and has no handler/,
    ],
    [
      "a handler without a resource",
      (s) => void delete s.resources["palisade:index:Registry"],
      /Registry: has a handler and is not in the schema/,
    ],
    [
      "a property that nobody returns",
      (s) => {
        const disk = s.resources["palisade:index:StateDisk"]!;
        disk.properties["colour"] = { type: "string" };
        disk.required = [...(disk.required ?? []), "colour"];
      },
      /StateDisk\.colour: missing/,
    ],
    [
      "a property that is returned and not declared",
      (s) => void delete s.resources["palisade:index:Registry"]!.properties["ca"],
      /Registry\.ca: not in the schema/,
    ],
    [
      "another type",
      (s) => void (s.resources["palisade:index:Registry"]!.properties["server"] = { type: "integer" }),
      /Registry\.server: .* is not of type integer/,
    ],
    [
      "another nested type",
      (s) => void (s.types["palisade:index:ContainerState"]!.properties["restartCount"] = { type: "string" }),
      /restartCount: 0 is not of type string/,
    ],
    [
      "an argument that the SDK lacks",
      (s) => void (s.resources["palisade:index:HostImage"]!.inputProperties["colour"] = { type: "string" }),
      /HostImage: arguments of the SDK/,
    ],
  ];
  it.each(mistakes)("%s is found", (_name, change, expected) => {
    const schema = structuredClone(packageSchema);
    change(schema);
    expect(disagreements(schema, resources, outputs, sdkSource).join("\n")).toMatch(expected);
  });
});
