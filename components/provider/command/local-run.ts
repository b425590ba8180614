import type { PluginFunction } from "../resource.js";
import { validateFunction } from "../resources/schema.js";
import { runLocally } from "./local-process.js";
import { commandSchema } from "./schema.js";

/** A command of this machine that runs whenever the program does, in preview too. */
export const localRun: PluginFunction<undefined> = async (_context, request) => {
  const { inputs, failures } = validateFunction(commandSchema, "command:local:run", request.inputs);
  if (failures.length > 0) return { outputs: {}, failures };
  return { outputs: { ...inputs, ...(await runLocally(request.op, inputs["command"] as string, inputs)) }, failures };
};
