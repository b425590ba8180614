import type { Resource } from "../provider/protocol/resource.js";
import { inputDifferences } from "../provider/schema/difference.js";
import { copyTo } from "./remote-copy.js";
import { common, decoder, newId } from "./schema.js";

const type = "command:remote:CopyFile";

/** The older form of CopyToRemote. Every change replaces the resource and copies again. */
export const copyFile: Resource<undefined> = {
  ...common(type),

  diff: ({ oldInputs, inputs }) => inputDifferences(oldInputs, inputs, [/./]),

  async create(_context, { inputs, preview, op }) {
    if (preview) return { id: "", outputs: inputs };
    const { connection, localPath, remotePath } = decoder.decode(type, inputs);
    await copyTo(op, connection, { path: localPath }, remotePath);
    return { id: newId(), outputs: inputs };
  },

  async update(_context, { inputs }) {
    return inputs;
  },

  async delete() {
    // As in the published plugin, the copy stays.
  },
};
