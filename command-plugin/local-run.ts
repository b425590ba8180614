import type { PluginFunction } from "../provider/protocol/resource.js";
import { validateFunction } from "../provider/schema/schema.js";
import type { LocalRunInputs } from "./inputs.js";
import { runLocally } from "./local-process.js";
import { commandOutputs, commandSchema, commandProblems } from "./schema.js";

/** A command on this machine that runs with each run of the program, in preview too. */
export const localRun: PluginFunction<undefined> = async (_context, request) => {
  const { inputs, failures } = validateFunction(commandSchema, "command:local:run", request.inputs);
  if (failures.length === 0) failures.push(...commandProblems(inputs));
  if (failures.length > 0) return { outputs: {}, failures };
  // Validated above; the engine calls a function when all of its arguments are known.
  const known = inputs as unknown as LocalRunInputs;
  const outcome = await runLocally(request.op, known.command, known);
  return { outputs: { ...inputs, ...outcome }, failures, derived: commandOutputs };
};
