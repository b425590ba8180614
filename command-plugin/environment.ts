/** Limits of the system for arguments and variables of a program: text without NUL, up to a length. */
import type { Operation } from "../provider/backends/index.js";
import { PropertyError, type CheckFailure } from "../provider/backends/errors.js";
import { type Properties, type Value } from "../provider/protocol/resource.js";
import { isRecord } from "../provider/schema/schema.js";

/**
 * Linux accepts 128 KiB for one argument or one variable with its name, including the NUL at the end (MAX_ARG_STRLEN,
 * execve(2)).
 */
const longest = 128 * 1024 - 1;

export type Variables = Record<string, string>;

/** The commands of a resource, of which one runs at a time. */
export type Commands = { create?: string; update?: string; delete?: string };

/** What is looked at of a command's inputs, known or not. */
type Given = Record<string, Value | undefined>;

/** The reason why the system cannot pass a text to a program. The text, which may be secret, is not repeated. */
function textProblem(text: string): string | undefined {
  if (text.includes("\0")) return "holds a NUL character, which no argument and no variable of a program can";
  const length = Buffer.byteLength(text);
  return length > longest ? `is ${length} bytes long; the system takes ${longest} at most` : undefined;
}

/** The inputs of a command that the system would refuse. Values that are not known yet pass. */
export function inputProblems(inputs: Given): CheckFailure[] {
  const failures: CheckFailure[] = [];
  const look = (property: string, value: Value | undefined, what = "", prefix = ""): void => {
    const reason = typeof value === "string" ? textProblem(`${prefix}${value}`) : undefined;
    if (reason) failures.push({ property, reason: `${what}${reason}` });
  };
  for (const name of ["command", "create", "update", "delete", "dir"]) look(name, inputs[name]);
  const { environment, interpreter } = inputs;
  if (Array.isArray(interpreter)) {
    interpreter.forEach((item, index) => look(`interpreter[${index}]`, item));
    if (interpreter.length === 0) {
      failures.push({ property: "interpreter", reason: "is empty; its first item is the program, e.g. /bin/sh" });
    }
  }
  for (const [name, value] of isRecord(environment) ? Object.entries(environment) : []) {
    const property = `environment[${JSON.stringify(name)}]`;
    if (name === "" || /[=\0]/.test(name)) {
      failures.push({ property, reason: "a variable's name has at least one character, and neither = nor NUL" });
    } else look(property, value, "", `${name}=`);
  }
  return failures;
}

/** @throws PropertyError for inputs that the system would refuse */
export function requireAcceptable(inputs: Given): void {
  const failures = inputProblems(inputs);
  if (failures.length > 0) throw new PropertyError(failures);
}

/**
 * Variables with the output of the last run, unless that was switched off. Output that no variable can hold is left out
 * and logged.
 */
export function previousOutput(
  op: Operation,
  { addPreviousOutputInEnv }: { addPreviousOutputInEnv: boolean },
  outputs: Properties | undefined,
): Variables {
  const found: Variables = {};
  if (!addPreviousOutputInEnv) return found;
  for (const [name, output] of [
    ["PULUMI_COMMAND_STDOUT", "stdout"],
    ["PULUMI_COMMAND_STDERR", "stderr"],
  ] as const) {
    const value = outputs?.[output];
    if (typeof value !== "string") continue;
    const reason = textProblem(`${name}=${value}`);
    if (reason) op.log("info", `${name} is not set: the output of the last run ${reason}`);
    else found[name] = value;
  }
  return found;
}
