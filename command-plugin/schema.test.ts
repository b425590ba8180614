/** The schema says what the npm package @pulumi/command 1.2.1 says, property by property. */
import { readFileSync } from "node:fs";
import path from "node:path";
import ts from "typescript";
import { describe, expect, it } from "vitest";
import { commandSchema } from "./schema.js";

const folder = path.dirname(require.resolve("@pulumi/command/package.json"));
const read = (file: string): string => readFileSync(path.join(folder, file), "utf8");

const packageJson = JSON.parse(read("package.json")) as { version: string };

type Property = Record<string, unknown>;
type Shape = Record<string, { type: string; isOptional: boolean }>;

/** The properties of an interface or class of a declaration file, their types without Pulumi's wrappers. */
function declared(file: string, name: string, inside = ""): Shape {
  const text = read(file);
  const source = ts.createSourceFile(file, text, ts.ScriptTarget.ES2022, true);
  const shape: Shape = {};
  const visit = (node: ts.Node, space: string): void => {
    if (ts.isModuleDeclaration(node)) {
      ts.forEachChild(node, (child) => visit(child, node.name.text));
    } else if (
      (ts.isInterfaceDeclaration(node) || ts.isClassDeclaration(node)) &&
      node.name?.text === name &&
      space === inside
    ) {
      for (const member of node.members) {
        if (!ts.isPropertySignature(member) && !ts.isPropertyDeclaration(member)) continue;
        const type = plain(member.type!);
        shape[member.name.getText()] = {
          type: type.replace(/ ?\| ?undefined/, ""),
          isOptional: member.questionToken !== undefined || type.includes("undefined"),
        };
      }
    } else ts.forEachChild(node, (child) => visit(child, space));
  };
  visit(source, "");
  return shape;
}

/** `pulumi.Input<pulumi.Input<string>[]>` → `string[]`. */
function plain(node: ts.TypeNode): string {
  if (ts.isTypeReferenceNode(node)) {
    const name = node.typeName.getText();
    if (/^pulumi\.(Input|Output)$/.test(name)) return plain(node.typeArguments![0]!);
    return name.replace(/^(inputs|outputs|enums)\./, "").replace(/Args$/, "");
  }
  if (ts.isArrayTypeNode(node)) return `${plain(node.elementType)}[]`;
  if (ts.isUnionTypeNode(node)) return node.types.map(plain).join(" | ");
  if (ts.isTypeLiteralNode(node)) {
    const [index] = node.members;
    return `{ ${plain((index as ts.IndexSignatureDeclaration).type)} }`;
  }
  return node.getText();
}

/** The same words for a property of the schema. */
function typeOf(property: Property): string {
  const reference = property["$ref"] as string | undefined;
  if (reference === "pulumi.json#/Any") return "any";
  if (reference === "pulumi.json#/Asset") return "pulumi.asset.Asset | pulumi.asset.Archive";
  if (reference === "pulumi.json#/Archive") return "pulumi.asset.Archive";
  if (reference) return reference.replace("#/types/command:", "").replace(":", ".");
  if (property["type"] === "array") return `${typeOf(property["items"] as Property)}[]`;
  if (property["type"] === "object") return `{ ${typeOf(property["additionalProperties"] as Property)} }`;
  return property["type"] === "integer" ? "number" : (property["type"] as string);
}

function described(properties: Record<string, unknown>, required: string[] = []): Shape {
  return Object.fromEntries(
    Object.entries(properties).map(([name, property]) => [
      name,
      { type: typeOf(property as Property), isOptional: !required.includes(name) },
    ]),
  );
}

/** Which of the properties carry a mark, e.g. `secret`. */
const marked = (properties: Record<string, unknown>, mark: string): string[] =>
  Object.entries(properties)
    .filter(([, property]) => (property as Property)[mark] === true)
    .map(([name]) => name);

const defaults = (properties: Record<string, unknown>): Record<string, unknown> =>
  Object.fromEntries(
    Object.entries(properties)
      .map(([name, property]) => [name, (property as Property)["default"]])
      .filter(([, value]) => value !== undefined),
  );

it("is of the version that is installed", () => {
  expect(packageJson.version).toBe("1.2.1");
  expect(commandSchema.version).toBe(packageJson.version);
});

describe.each([
  ["command:local:Command", "local/command", "Command"],
  ["command:remote:Command", "remote/command", "Command"],
  ["command:remote:CopyToRemote", "remote/copyToRemote", "CopyToRemote"],
  ["command:remote:CopyFile", "remote/copyFile", "CopyFile"],
])("%s", (token, file, name) => {
  const spec = commandSchema.resources[token]!;
  const code = read(`${file}.js`);

  it("has the published inputs", () => {
    expect(described(spec.inputProperties, spec.requiredInputs)).toEqual(declared(`${file}.d.ts`, `${name}Args`));
  });

  it("has the published outputs", () => {
    expect(described(spec.properties, spec.required)).toEqual(declared(`${file}.d.ts`, name));
  });

  it("has the published type, secrets and replacements", () => {
    expect(code).toContain(`'${token}'`);
    const secret = [...code.matchAll(/resourceInputs\["(\w+)"\] = .*pulumi\.secret\(/g)].map((match) => match[1]);
    expect(marked(spec.inputProperties, "secret")).toEqual(secret);
    const additional = /additionalSecretOutputs: \[(.*?)\]/.exec(code)?.[1]?.match(/\w+/g) ?? [];
    expect(marked(spec.properties, "secret")).toEqual(additional);
    const replaces = /replaceOnChanges: \["(\w+)\[\*\]"\]/.exec(code)?.[1];
    expect(marked(spec.inputProperties, "replaceOnChanges")).toEqual(replaces ? [replaces] : []);
  });
});

it("command:local:run has the published arguments and results", () => {
  const { inputs, outputs } = commandSchema.functions!["command:local:run"]!;
  expect(described(inputs.properties, inputs.required)).toEqual(declared("local/run.d.ts", "RunArgs"));
  expect(described(outputs.properties, outputs.required)).toEqual(declared("local/run.d.ts", "RunResult"));
});

describe.each(["Connection", "ProxyConnection"])("remote:%s", (name) => {
  const spec = commandSchema.types[`command:remote:${name}`]!;

  it("has the published properties", () => {
    expect(described(spec.properties, spec.required)).toEqual(declared("types/input.d.ts", `${name}Args`, "remote"));
  });

  it("has the published defaults", () => {
    const start = name === "Connection" ? "connectionArgsProvideDefaults" : "proxyConnectionArgsProvideDefaults";
    const body = new RegExp(`function ${start}\\(val\\) \\{([\\s\\S]*?)\\n    \\}`).exec(read("types/input.js"))![1]!;
    const published = [...body.matchAll(/(\w+): \(val\.\w+\) \?\? (.*),/g)].map(([, key, value]) => [
      key,
      JSON.parse(value!) as unknown,
    ]);
    expect(defaults(spec.properties)).toEqual(Object.fromEntries(published));
  });
});

it.each(["local", "remote"])("%s:Logging has the published choices", async (module) => {
  const file = path.join(folder, `types/enums/${module}/index.js`);
  const published = ((await import(file)) as { Logging: Record<string, string> }).Logging;
  const choices = commandSchema.types[`command:${module}:Logging`]!.enum!.map((one) => one.value);
  expect(choices).toEqual(Object.values(published));
});
