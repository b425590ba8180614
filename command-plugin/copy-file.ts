import type { Resource } from "../provider/protocol/resource.js";
import { inputDifferences } from "../provider/schema/difference.js";
import { copyTo } from "./remote-copy.js";
import { common, newId } from "./schema.js";
import type { Connection } from "./ssh.js";

/** The older form of CopyToRemote. Every change replaces the resource and copies again. */
export const copyFile: Resource<undefined> = {
  ...common("command:remote:CopyFile"),

  diff: ({ oldInputs, inputs }) => inputDifferences(oldInputs, inputs, [/./]),

  async create(_context, { inputs, preview, op }) {
    if (preview) return { id: "", outputs: inputs };
    const { connection, localPath, remotePath } = inputs;
    await copyTo(op, connection as unknown as Connection, { path: localPath as string }, remotePath as string);
    return { id: newId(), outputs: inputs };
  },

  async update(_context, { inputs }) {
    return inputs;
  },

  async delete() {
    // As in the published plugin, the copy stays.
  },
};
