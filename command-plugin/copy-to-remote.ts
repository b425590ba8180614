import type { Operation } from "../provider/backends/index.js";
import type { Properties, Resource, Value } from "../provider/protocol/resource.js";
import { isUnknown } from "../provider/protocol/resource.js";
import { isRecord } from "../provider/schema/schema.js";
import { differences } from "../provider/schema/difference.js";
import { sourceOf } from "./assets.js";
import { copyTo } from "./remote-copy.js";
import { common, decoder, newId } from "./schema.js";

const type = "command:remote:CopyToRemote";
const base = common(type);

const copy = (op: Operation, inputs: Properties): Promise<void> => {
  const { connection, source, remotePath } = decoder.decode(type, inputs);
  return copyTo(op, connection, sourceOf(source as Value), remotePath);
};

/** The source of the copy, without its path on this machine. */
const content = ({ source, remotePath }: Properties): Properties => ({
  remotePath: remotePath ?? null,
  source: isRecord(source) && source["hash"] ? source["hash"] : (source ?? null),
});

/** A file, a text or a folder, copied when it is new or has changed. */
export const copyToRemote: Resource<undefined> = {
  ...base,

  async check(context, request) {
    const checked = await base.check(context, request);
    const { source } = checked.inputs;
    if (source === undefined || isUnknown(source)) return checked;
    try {
      sourceOf(source);
    } catch (error) {
      checked.failures.push({ property: "source", reason: (error as Error).message.replace(/^source: /, "") });
    }
    return checked;
  },

  async create(_context, { inputs, preview, op }) {
    if (preview) return { id: "", outputs: inputs };
    await copy(op, inputs);
    return { id: newId(), outputs: inputs };
  },

  async update(_context, { oldInputs, inputs, preview, op }) {
    const changed = [...differences("", content(oldInputs), content(inputs))].length > 0;
    if (!preview && changed) await copy(op, inputs);
    return inputs;
  },

  async delete() {
    // As in the published plugin, the copy stays.
  },
};
