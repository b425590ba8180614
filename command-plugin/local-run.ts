import type { PluginFunction } from "../provider/protocol/resource.js";
import { validateFunction } from "../provider/schema/schema.js";
import { runLocally } from "./local-process.js";
import { commandOutputs, commandSchema, commandTroubles } from "./schema.js";

/** A command of this machine that runs whenever the program does, in preview too. */
export const localRun: PluginFunction<undefined> = async (_context, request) => {
  const { inputs, failures } = validateFunction(commandSchema, "command:local:run", request.inputs);
  if (failures.length === 0) failures.push(...commandTroubles(inputs));
  if (failures.length > 0) return { outputs: {}, failures };
  const outcome = await runLocally(request.op, inputs["command"] as string, inputs);
  return { outputs: { ...inputs, ...outcome }, failures, derived: commandOutputs };
};
