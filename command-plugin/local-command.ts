import { unknown, type Properties, type Resource } from "../provider/protocol/resource.js";
import { runLocally } from "./local-process.js";
import { previousOutput } from "./environment.js";
import { commandOutputs, common, decoder, newId } from "./schema.js";

const type = "command:local:Command";

/** Outputs that are not known before the command has run. */
const outcome = (inputs: Properties): Properties => ({
  stdout: unknown,
  stderr: unknown,
  ...(inputs["assetPaths"] ? { assets: unknown } : {}),
  ...(inputs["archivePaths"] ? { archive: unknown } : {}),
});

/** A command on this machine at the create, update and delete of a resource. */
export const localCommand: Resource<undefined> = {
  ...common(type),
  derived: commandOutputs,

  async create(_context, { inputs, preview, op }) {
    if (preview) return { id: "", outputs: { ...inputs, ...outcome(inputs) } };
    const known = decoder.decode(type, inputs);
    const command = known.create;
    const outputs = command === undefined ? { stdout: "", stderr: "" } : await runLocally(op, command, known);
    return { id: newId(), outputs: { ...inputs, ...outputs } };
  },

  async update(_context, { oldOutputs, inputs, preview, op }) {
    if (preview) return { ...inputs, ...outcome(inputs) };
    const known = decoder.decode(type, inputs);
    const command = known.update ?? known.create;
    const { stdout = "", stderr = "" } = oldOutputs;
    if (command === undefined) return { ...inputs, stdout, stderr };
    return { ...inputs, ...(await runLocally(op, command, known, previousOutput(op, known, oldOutputs))) };
  },

  async delete(_context, { outputs, op }) {
    const known = decoder.decode(type, outputs);
    if (known.delete !== undefined) await runLocally(op, known.delete, known, previousOutput(op, known, outputs));
  },
};
