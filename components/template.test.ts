/**
 * The template of `pulumi new` compiles with the TypeScript that Pulumi takes, and with the versions that npm gives by
 * itself.
 */
import { readFileSync } from "node:fs";
import path from "node:path";
import ts5 from "typescript";
import ts6 from "typescript-6";
import { describe, expect, it } from "vitest";
import { packageRoot } from "../shared/directories.js";

const root = packageRoot();
const template = path.join(root, "templates/typescript");
const read = (...names: string[]) => readFileSync(path.join(root, ...names), "utf8");

/** Compiles it with our sources in place of the installed package; the messages for its own files and options. */
function compile(
  typescript: typeof ts5,
  change: (options: Record<string, unknown>) => void = () => undefined,
): string[] {
  const settings = JSON.parse(read("templates/typescript/tsconfig.json"));
  change(settings.compilerOptions);
  const { fileNames, options, errors } = typescript.parseJsonConfigFileContent(settings, typescript.sys, template);
  const program = typescript.createProgram(fileNames, {
    ...options,
    // Of the clone, not of a project.
    noEmit: true,
    rootDir: root,
    typeRoots: [path.join(root, "node_modules/@types")],
    paths: { "@palisade-host/palisade": [path.join(root, "components/index.ts")] },
  });
  const file = program.getSourceFile(fileNames[0]!)!;
  const found = [...errors, ...program.getOptionsDiagnostics(), ...program.getSyntacticDiagnostics(file)];
  return [...found, ...program.getSemanticDiagnostics(file)].map(
    ({ code, messageText }) => `TS${code}: ${typescript.flattenDiagnosticMessageText(messageText, "\n")}`,
  );
}

describe.each([
  ["5.9", ts5],
  ["6.0", ts6 as unknown as typeof ts5],
])("TypeScript %s", (version, typescript) => {
  it("compiles the template", { timeout: 120_000 }, () => {
    expect(typescript.version).toContain(`${version}.`);
    expect(compile(typescript)).toEqual([]);
  });
});

it("the check sees what TypeScript 6 refuses", { timeout: 120_000 }, () => {
  const old = (options: Record<string, unknown>) =>
    Object.assign(options, { module: "commonjs", moduleResolution: "node" });
  expect(compile(ts6 as unknown as typeof ts5, old).join("\n")).toContain("TS5107");
});

it("the template wants this version, and a TypeScript that Pulumi takes", () => {
  const { dependencies, devDependencies } = JSON.parse(read("templates/typescript/package.json"));
  const own = JSON.parse(read("package.json"));
  expect(dependencies["@palisade-host/palisade"]).toBe(own.version);
  expect(dependencies["@pulumi/pulumi"]).toBe(`^${own.dependencies["@pulumi/pulumi"]}`);
  expect(devDependencies["@types/node"]).toBe(`^${own.devDependencies["@types/node"]}`);
  expect(devDependencies.typescript).toBe(`^${(ts6 as unknown as typeof ts5).version}`);
  expect(own.files).toContain("templates/");
});

it("docs/consumer.md shows the template's tsconfig", () => {
  expect(read("docs/consumer.md")).toContain(`\`\`\`json\n${read("templates/typescript/tsconfig.json")}\`\`\``);
});
