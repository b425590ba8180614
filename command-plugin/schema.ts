/** The published schema, and what all resources of this plugin share. */
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import path from "node:path";
import type { CheckFailure } from "../provider/backends/errors.js";
import type { Derived, Properties, Resource } from "../provider/protocol/resource.js";
import { inputDifferences } from "../provider/schema/difference.js";
import { Decoder } from "../provider/schema/decode.js";
import { validate, type PackageSchema } from "../provider/schema/schema.js";
import { packageRoot } from "../shared/directories.js";
import { inputProblems } from "./environment.js";
import { globProblem } from "./globs.js";
import type { Inputs } from "./inputs.js";

/** The schema in the form in which it is served. */
export const schemaText = readFileSync(path.join(packageRoot(), "command-plugin/schema.json"), "utf8");
export const commandSchema = JSON.parse(schemaText) as PackageSchema;

/** Decodes the inputs of this plugin's resources. */
export const decoder = new Decoder<Inputs>(commandSchema);

const day = 24 * 60 * 60;

/** Commands of the published plugin have no time-out of their own; this is the longest that a timer can hold. */
export const defaultTimeouts = { create: 24 * day, update: 24 * day, delete: 24 * day };

/** Ids are random, because there is nothing to look up. */
export const newId = (): string => randomBytes(8).toString("hex");

/**
 * The output of a command may depend on all of its inputs except the connection, which only logs in and is always
 * secret.
 */
export const commandOutputs: Derived = {
  outputs: ["stdout", "stderr", "assets", "archive"],
  exceptInputs: ["connection"],
};

/** The inputs of a command that cannot work although they fit the schema. */
export function commandProblems(inputs: Properties): CheckFailure[] {
  const failures = inputProblems(inputs);
  for (const name of ["assetPaths", "archivePaths"]) {
    const globs = inputs[name];
    if (!Array.isArray(globs)) continue;
    globs.forEach((glob, index) => {
      const reason = typeof glob === "string" ? globProblem(glob) : undefined;
      if (reason) failures.push({ property: `${name}[${index}]`, reason });
    });
  }
  return failures;
}

/** Common parts of the resources: validation by the schema, replacement by triggers, and nothing to observe. */
export function common(
  type: string,
): Pick<Resource<undefined>, "type" | "defaultTimeouts" | "check" | "diff" | "read"> {
  return {
    type,
    defaultTimeouts,
    async check(_context, { inputs }) {
      const checked = validate(type, inputs, commandSchema);
      // Before it runs: after a command has run, its program would have to undo it.
      if (checked.failures.length === 0) checked.failures.push(...commandProblems(checked.inputs));
      return checked;
    },
    diff: ({ oldInputs, inputs }) => inputDifferences(oldInputs, inputs, [/^triggers/]),
    async read(_context, { id, inputs, outputs }) {
      if (!inputs || !outputs)
        throw new Error(`${type}: a command that ran cannot be imported; declare it, and it runs`);
      return { id, inputs, outputs };
    },
  };
}

/** A text without the line end that commands print last. */
export const withoutLineEnd = (text: string): string => text.replace(/\n$/, "");
