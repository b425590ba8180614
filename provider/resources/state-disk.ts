import type { StateDiskObserved } from "../backends/index.js";
import type { Properties, Resource } from "../protocol/resource.js";
import { unknown } from "../protocol/resource.js";
import { inputDifferences } from "../schema/difference.js";
import { Rules } from "./rules.js";
import { checkInputs, decodeInputs, storedInputs } from "../schema/decode.js";
import type { Hypervisor } from "../schema/inputs.js";

const type = "palisade:index:StateDisk";

/** The URI of a resource's hypervisor; the schema's default where none is given. */
export const hypervisorUri = ({ hypervisor }: { hypervisor?: Hypervisor }): string => hypervisor?.uri ?? "local";

const outputs = (inputs: Properties, observed: StateDiskObserved): Properties => ({
  ...inputs,
  sizeGiB: observed.sizeGiB,
  path: observed.path,
});

/** The disk with a host's data. It grows in place. A smaller size would lose data, so Check refuses it. */
export const stateDisk: Resource = {
  type,
  defaultTimeouts: { create: 120, update: 120, delete: 120 },

  async check(_context, { inputs, oldInputs }) {
    const checked = checkInputs(type, inputs);
    const rules = new Rules(checked.failures);
    rules.hypervisor(checked.inputs.hypervisor);
    const size = checked.inputs.sizeGiB;
    rules.range("sizeGiB", size, 1, 65536, "GiB");
    const before = oldInputs?.["sizeGiB"];
    if (typeof size === "number" && typeof before === "number" && size < before) {
      rules.fail(
        "sizeGiB",
        `${size} is less than the present ${before} GiB; a disk cannot shrink without losing data. ` +
          "Make another StateDisk under a new name if the data can go",
      );
    }
    return checked;
  },

  diff({ oldInputs, oldOutputs, inputs }) {
    const changes = inputDifferences(oldInputs, inputs, [/^hypervisor\./], [/^hypervisor$/]);
    const drifted = changes.length === 0 && oldOutputs["sizeGiB"] !== inputs["sizeGiB"];
    return drifted ? [{ path: "sizeGiB", kind: "update", inputDiff: false }] : changes;
  },

  async create({ backends }, { inputs, preview, op }) {
    if (preview) return { id: "", outputs: { ...inputs, path: unknown } };
    const known = decodeInputs(type, inputs);
    const observed = await backends.hypervisor(hypervisorUri(known)).createStateDisk(op, { sizeGiB: known.sizeGiB });
    return { id: observed.id, outputs: outputs(inputs, observed) };
  },

  async read({ backends }, { id, inputs }) {
    const observed = await backends.hypervisor(hypervisorUri(storedInputs(type, inputs))).readStateDisk(id);
    if (!observed) return undefined;
    const known = inputs ?? { sizeGiB: observed.sizeGiB };
    return { id, inputs: known, outputs: outputs(known, observed) };
  },

  async update({ backends }, { id, oldOutputs, inputs, preview, op }) {
    if (preview) return { ...oldOutputs, ...inputs };
    const known = decodeInputs(type, inputs);
    const hypervisor = backends.hypervisor(hypervisorUri(known));
    return outputs(inputs, await hypervisor.resizeStateDisk(op, id, known.sizeGiB));
  },

  async delete({ backends }, { id, inputs, op }) {
    await backends.hypervisor(hypervisorUri(storedInputs(type, inputs))).deleteStateDisk(op, id);
  },
};
