import type { RegistryObserved } from "../backends/index.js";
import type { Properties, Resource } from "../protocol/resource.js";
import { unknown } from "../protocol/resource.js";
import { drift, inputDifferences } from "../schema/difference.js";
import { Rules } from "./rules.js";
import { checkInputs, decodeInputs } from "../schema/decode.js";

const type = "palisade:index:Registry";

const outputs = (observed: RegistryObserved): Properties => ({
  port: observed.port,
  server: observed.server,
  username: observed.username,
  password: observed.password,
  ca: observed.ca,
  powerState: observed.powerState,
});

/** An OCI registry on this machine. A change of its port restarts it; a stopped one is started again. */
export const registry: Resource = {
  type,
  defaultTimeouts: { create: 120, update: 120, delete: 120 },

  async check(_context, { inputs }) {
    const checked = checkInputs(type, inputs);
    const rules = new Rules(checked.failures);
    rules.range("port", checked.inputs.port, 0, 65535);
    return checked;
  },

  diff({ oldInputs, oldOutputs, inputs }) {
    const changes = inputDifferences(oldInputs, inputs, [/^port$/]);
    return oldOutputs["powerState"] === "stopped" ? [...changes, drift("powerState")] : changes;
  },

  async create({ backends }, { inputs, preview, op }) {
    if (preview) {
      const names = ["server", "username", "password", "ca"];
      return {
        id: "",
        outputs: { ...inputs, ...Object.fromEntries(names.map((name) => [name, unknown])), powerState: "running" },
      };
    }
    const observed = await backends.registries.createRegistry(op, decodeInputs(type, inputs));
    return { id: observed.id, outputs: outputs(observed) };
  },

  async read({ backends }, { id, inputs }) {
    const observed = await backends.registries.readRegistry(id);
    return observed && { id, inputs: inputs ?? { port: observed.port }, outputs: outputs(observed) };
  },

  async update({ backends }, { id, oldOutputs, inputs, preview, op }) {
    if (preview) return { ...oldOutputs, ...inputs, powerState: "running" };
    return outputs(await backends.registries.updateRegistry(op, id, decodeInputs(type, inputs)));
  },

  async delete({ backends }, { id, op }) {
    await backends.registries.deleteRegistry(op, id);
  },
};
