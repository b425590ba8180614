import fc from "fast-check";
import { Struct } from "google-protobuf/google/protobuf/struct_pb.js";
import { describe, expect, it } from "vitest";
import { unknown, type Properties, type Value } from "./resource.js";
import { decode, encode, SecretPaths, signatureKey, type Path } from "./marshal.js";

const secretSignature = "1b47061264138c4ac30d75fd1eb44270";
const outputSignature = "d0e6a833031e9bbcd3f4e8bde6ca49a4";
const unknownString = "04da6b54-80e4-46f7-96ec-b56ff0331ba9";

// protobuf's own conversion of structs cannot carry this name.
const name = fc.string({ minLength: 1 }).filter((text) => text !== "__proto__");

const leaf = fc.oneof(
  fc.string(),
  fc.boolean(),
  fc.double({ noNaN: true, noDefaultInfinity: true }).map((number) => number + 0),
  fc.constant(null),
  fc.constant(unknown),
);
const { value } = fc.letrec<{ value: Value }>((tie) => ({
  value: fc.oneof(
    { depthSize: "small", withCrossShrink: true },
    leaf,
    fc.array(tie("value"), { maxLength: 4 }),
    fc.dictionary(name, tie("value"), { maxKeys: 4, noNullPrototype: true }),
  ),
})) as { value: fc.Arbitrary<Value> };
const properties = fc.dictionary(name, value, {
  maxKeys: 5,
  noNullPrototype: true,
}) as fc.Arbitrary<Properties>;

/** Every path of a tree. */
function paths(tree: Value, at: Path = []): Path[] {
  if (Array.isArray(tree)) return [at, ...tree.flatMap((item, index) => paths(item, [...at, index]))];
  if (typeof tree !== "object" || tree === null || tree === unknown) return [at];
  return [at, ...Object.entries(tree).flatMap(([name, item]) => paths(item, [...at, name]))];
}

describe("values on the wire", () => {
  it("come back as they went, secrets at the same places", () => {
    fc.assert(
      fc.property(properties, fc.infiniteStream(fc.boolean()), (tree, choices) => {
        const marked = paths(tree).filter((path) => path.length > 0 && choices.next().value);
        // Values below a secret one are part of it, and are not marked again.
        const outermost = marked.filter(
          (path) => !marked.some((other) => other.length < path.length && other.every((step, i) => step === path[i])),
        );
        const secrets = new SecretPaths();
        for (const path of outermost) secrets.add(path);
        const bytes = encode(tree, secrets).serializeBinary();
        const back = decode(Struct.deserializeBinary(bytes));
        expect(back.properties).toEqual(tree);
        const found = paths(tree).filter((path) => back.secrets.has(path));
        expect(new Set(found.map((path) => JSON.stringify(path)))).toEqual(
          new Set(outermost.map((path) => JSON.stringify(path))),
        );
      }),
      { numRuns: 200 },
    );
  });

  it("leave out what is undefined", () => {
    const tree = { there: 1, missing: undefined } as unknown as Properties;
    expect(encode(tree).toJavaScript()).toEqual({ there: 1 });
  });

  it("are unwrapped from outputs, known or not", () => {
    const struct = Struct.fromJavaScript({
      known: { [signatureKey]: outputSignature, value: "a", secret: true, dependencies: ["urn"] },
      unknown: { [signatureKey]: outputSignature },
    });
    const { properties: tree, secrets } = decode(struct);
    expect(tree).toEqual({ known: "a", unknown });
    expect(secrets.has(["known"])).toBe(true);
    expect(secrets.has(["unknown"])).toBe(false);
  });

  it("keep an unknown whole secret when something in it was", () => {
    const secrets = new SecretPaths();
    secrets.add(["list", 0, "password"]);
    expect(encode({ list: unknown }, secrets).toJavaScript()).toEqual({
      list: { [signatureKey]: secretSignature, value: unknownString },
    });
  });

  it("pass assets as the objects that they are", () => {
    const asset = { [signatureKey]: "c44067f5952c0a294b673a41bacd8c17", text: "hello" };
    const { properties: tree } = decode(Struct.fromJavaScript({ asset }));
    expect(tree["asset"]).toEqual(asset);
    expect(encode(tree).toJavaScript()).toEqual({ asset });
  });

  it("keep names that every object has", () => {
    const names = ["constructor", "toString", "hasOwnProperty", "valueOf", "__defineGetter__"];
    const properties = { environment: Object.fromEntries(names.map((name) => [name, name])) };
    expect(decode(encode(properties)).properties).toEqual(properties);
  });

  // The map of protobuf loses it, and it cannot be recovered, so it is refused.
  it.each<Properties>([{ placehold: 1 }, { a: { placehold: 1 } }, { a: [{ b: { placehold: "x" } }] }])(
    "refuse the name __proto__ in place of another: %j",
    (properties) => {
      const bytes = Buffer.from(encode(properties).serializeBinary()).toString("latin1");
      const wire = Buffer.from(bytes.replace("placehold", "__proto__"), "latin1");
      expect(() => decode(Struct.deserializeBinary(wire))).toThrow(/__proto__: no property can have this name/);
    },
  );

  it("of an absent struct are none", () => {
    expect(decode(undefined).properties).toEqual({});
  });
});
