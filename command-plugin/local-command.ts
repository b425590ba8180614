import { unknown, type Properties, type Resource } from "../provider/protocol/resource.js";
import { runLocally } from "./local-process.js";
import { previousOutput } from "./environment.js";
import { commandOutputs, common, newId } from "./schema.js";

/** Outputs that are not known before the command has run. */
const outcome = (inputs: Properties): Properties => ({
  stdout: unknown,
  stderr: unknown,
  ...(inputs["assetPaths"] ? { assets: unknown } : {}),
  ...(inputs["archivePaths"] ? { archive: unknown } : {}),
});

/** A command on this machine at the create, update and delete of a resource. */
export const localCommand: Resource<undefined> = {
  ...common("command:local:Command"),
  derived: commandOutputs,

  async create(_context, { inputs, preview, op }) {
    const command = inputs["create"] as string | undefined;
    if (preview) return { id: "", outputs: { ...inputs, ...outcome(inputs) } };
    const outputs = command === undefined ? { stdout: "", stderr: "" } : await runLocally(op, command, inputs);
    return { id: newId(), outputs: { ...inputs, ...outputs } };
  },

  async update(_context, { oldOutputs, inputs, preview, op }) {
    if (preview) return { ...inputs, ...outcome(inputs) };
    const command = (inputs["update"] ?? inputs["create"]) as string | undefined;
    const { stdout = "", stderr = "" } = oldOutputs;
    if (command === undefined) return { ...inputs, stdout, stderr };
    return { ...inputs, ...(await runLocally(op, command, inputs, previousOutput(op, inputs, oldOutputs))) };
  },

  async delete(_context, { outputs, op }) {
    const command = outputs["delete"] as string | undefined;
    if (command !== undefined) await runLocally(op, command, outputs, previousOutput(op, outputs, outputs));
  },
};
