/** The published schema, and what all resources of this plugin share. */
import { randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import path from "node:path";
import type { Properties, Resource } from "../resource.js";
import { inputDifferences } from "../resources/difference.js";
import { findPackageRoot, validate, type PackageSchema } from "../resources/schema.js";

/** As it is served. */
export const schemaText = readFileSync(path.join(findPackageRoot(), "components/provider/command/schema.json"), "utf8");
export const commandSchema = JSON.parse(schemaText) as PackageSchema;

const day = 24 * 60 * 60;

/** Published commands have no time-out of their own; the longest that a timer can hold stands for that. */
export const defaultTimeouts = { create: 24 * day, update: 24 * day, delete: 24 * day };

/** Ids mean nothing: there is nothing to look up. */
export const newId = (): string => randomBytes(8).toString("hex");

/** What the resources have in common: validation by the schema, replacement by triggers, and nothing to observe. */
export function common(
  type: string,
): Pick<Resource<undefined>, "type" | "defaultTimeouts" | "check" | "diff" | "read"> {
  return {
    type,
    defaultTimeouts,
    async check(_context, { inputs }) {
      return validate(type, inputs, commandSchema);
    },
    diff: ({ oldInputs, inputs }) => inputDifferences(oldInputs, inputs, [/^triggers/]),
    async read(_context, { id, inputs, outputs }) {
      if (!inputs || !outputs)
        throw new Error(`${type}: a command that ran cannot be imported; declare it, and it runs`);
      return { id, inputs, outputs };
    },
  };
}

/** A text without the line end that commands leave behind. */
export const withoutLineEnd = (text: string): string => text.replace(/\n$/, "");

/** Variables with the output of the last run, unless that was switched off. */
export function previousOutput(inputs: Properties, outputs: Properties | undefined): Record<string, string> {
  const found: Record<string, string> = {};
  if (inputs["addPreviousOutputInEnv"] === false) return found;
  if (typeof outputs?.["stdout"] === "string") found["PULUMI_COMMAND_STDOUT"] = outputs["stdout"];
  if (typeof outputs?.["stderr"] === "string") found["PULUMI_COMMAND_STDERR"] = outputs["stderr"];
  return found;
}
