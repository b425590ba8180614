/**
 * Stands in for the provider of a package that cannot be had here, so that the real engine can preview and update
 * programs that use the package: it keeps its inputs and reports a detailed diff. It requires no replacement itself.
 * Usage: stand-in-plugin.js <package> <version> <answers.json> <engine address>; answers: type → outputs beside the
 * inputs.
 */
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import type { Backends } from "../../../provider/backends/index.js";
import type { Properties, PropertyDiff, Resource, Value } from "../../../provider/protocol/resource.js";
import { runPlugin } from "../../../provider/protocol/index.js";

/** The paths at which two values differ. */
function differences(path: string, before: Value | undefined, after: Value | undefined): PropertyDiff[] {
  if (JSON.stringify(before) === JSON.stringify(after)) return [];
  if (before === undefined) return [{ path, kind: "add", inputDiff: true }];
  if (after === undefined) return [{ path, kind: "delete", inputDiff: true }];
  if (Array.isArray(before) && Array.isArray(after)) {
    return Array.from({ length: Math.max(before.length, after.length) }).flatMap((_, index) =>
      differences(`${path}[${index}]`, before[index], after[index]),
    );
  }
  if (isBag(before) && isBag(after)) {
    return [...new Set([...Object.keys(before), ...Object.keys(after)])].flatMap((key) =>
      differences(path === "" ? key : `${path}.${key}`, before[key], after[key]),
    );
  }
  return [{ path, kind: "update", inputDiff: true }];
}

const isBag = (value: Value): value is Properties =>
  typeof value === "object" && value !== null && Object.getPrototypeOf(value) === Object.prototype;

const minute = 60;

function standIn(type: string, outputs: Properties): Resource {
  return {
    type,
    defaultTimeouts: { create: minute, update: minute, delete: minute },
    check: async (_context, { inputs }) => ({ inputs, failures: [] }),
    diff: ({ oldInputs, inputs }) => differences("", oldInputs, inputs),
    create: async (_context, { inputs, preview }) => ({
      id: preview ? "" : randomBytes(6).toString("hex"),
      outputs: { ...inputs, ...outputs },
    }),
    read: async (_context, request) => ({ id: request.id, inputs: request.inputs!, outputs: request.outputs! }),
    update: async (_context, { inputs }) => ({ ...inputs, ...outputs }),
    delete: async () => undefined,
  };
}

const [name, version, file] = process.argv.slice(2) as [string, string, string];
const answers = JSON.parse(readFileSync(file, "utf8")) as Record<string, Properties>;

runPlugin({
  backends: () => ({}) as Backends,
  resources: Object.entries(answers).map(([type, outputs]) => standIn(type, outputs)),
  schema: JSON.stringify({ name, version }),
}).catch((error: unknown) => {
  process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`);
  process.exit(1);
});
