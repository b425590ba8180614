import type { DebianImageObserved, DebianImageSpec, RegistryAccess } from "../backends/index.js";
import type { Properties, Resource, Value } from "../protocol/resource.js";
import { unknown } from "../protocol/resource.js";
import { inputDifferences } from "../schema/difference.js";
import { anyUnknown, imageId, layerPathTrouble, Rules, text } from "./rules.js";
import { isRecord, show, validate } from "../schema/schema.js";

const type = "palisade:index:DebianImage";

const strings = (value: Value | undefined): string[] => (Array.isArray(value) ? (value as string[]) : []);
const record = (value: Value | undefined): Record<string, string> =>
  isRecord(value) ? (value as Record<string, string>) : {};

function spec(inputs: Properties): DebianImageSpec {
  return {
    registry: inputs["registry"] as unknown as RegistryAccess,
    repository: inputs["repository"] as string,
    tag: inputs["tag"] as string,
    suite: inputs["suite"] as string,
    packages: strings(inputs["packages"]),
    ...(inputs["securityUpdates"] === undefined ? {} : { securityUpdates: inputs["securityUpdates"] as boolean }),
    ...(inputs["packageSources"] === undefined ? {} : { packageSources: inputs["packageSources"] as boolean }),
    entrypoint: strings(inputs["entrypoint"]),
    command: strings(inputs["command"]),
    environment: record(inputs["environment"]),
    workingDirectory: inputs["workingDirectory"] as string,
    files: record(inputs["files"]),
  };
}

function outputs(inputs: Properties, observed: DebianImageObserved): Properties {
  return { ...inputs, digest: observed.digest, reference: observed.reference };
}

/** An empty list or map means the same as none; one form makes an imported image equal to its program. */
function withoutEmpty(inputs: Properties): Properties {
  const optional = ["entrypoint", "command", "environment", "files"];
  return Object.fromEntries(
    Object.entries(inputs).filter(
      ([name, value]) => !optional.includes(name) || !/^(\[\]|\{\})$/.test(JSON.stringify(value)),
    ),
  );
}

/** A container image made from Debian packages. Any change builds again; the images pushed before stay in the registry. */
export const debianImage: Resource = {
  type,
  defaultTimeouts: { create: 900, update: 900, delete: 60 },

  async check({ backends }, { inputs }) {
    const { inputsHash: _computed, ...given } = inputs;
    const checked = validate(type, given);
    checked.inputs = withoutEmpty(checked.inputs);
    const rules = new Rules(checked.failures);
    const known = checked.inputs;
    if (isRecord(known["registry"])) rules.server("registry.server", known["registry"]["server"]);
    rules.repository("repository", known["repository"]);
    rules.tag("tag", known["tag"]);
    rules.matches("suite", known["suite"], /^[a-z][a-z0-9-]*$/, "the name of a Debian suite");
    if (Array.isArray(known["packages"])) {
      if (known["packages"].length === 0) rules.fail("packages", "at least one package is needed");
      known["packages"].forEach((name, index) =>
        rules.matches(`packages[${index}]`, name, /^[a-z0-9][a-z0-9+.-]+$/, "the name of a Debian package"),
      );
    }
    rules.matches("workingDirectory", known["workingDirectory"], /^\/[^\0]*$/, "an absolute path");
    const files = Object.keys(record(known["files"]));
    for (const file of files) {
      const trouble = layerPathTrouble(file);
      if (trouble) rules.fail(`files[${JSON.stringify(file)}]`, `${show(file)} ${trouble}`);
      const folder = files.find((other) => other !== "" && file.startsWith(`${other}/`));
      if (folder !== undefined) {
        rules.fail(`files[${JSON.stringify(file)}]`, `${show(file)} lies in ${show(folder)}, which is a file`);
      }
    }
    for (const [name, value] of Object.entries(record(known["environment"]))) {
      const at = `environment[${JSON.stringify(name)}]`;
      rules.matches(at, name, /^[^=\0]+$/, "the name of a variable: not empty, without '=' and without a zero byte");
      if (text(value)?.includes("\0")) rules.fail(at, "holds a zero byte, where a value ends");
    }
    for (const field of ["entrypoint", "command"]) {
      strings(known[field]).forEach((word, index) => {
        if (text(word)?.includes("\0")) rules.fail(`${field}[${index}]`, "holds a zero byte, where a word ends");
      });
    }
    if (checked.failures.length === 0) {
      // What decides the content beside the program's own words: a change of it builds again.
      const { registry: _registry, ...content } = known;
      known["inputsHash"] = anyUnknown(content) ? unknown : await backends.images.inputsHash(spec(known));
    }
    return checked;
  },

  diff({ oldInputs, inputs }) {
    // How the registry is reached does not change what was pushed.
    return inputDifferences(oldInputs, inputs, [], [/^registry\.(username|password|ca)$/]);
  },

  async create({ backends }, { inputs, preview, op }) {
    if (preview) return { id: "", outputs: { ...inputs, digest: unknown, reference: unknown } };
    const observed = await backends.images.buildDebianImage(op, spec(inputs));
    return { id: observed.reference, outputs: outputs(inputs, observed) };
  },

  async read({ backends }, { id, inputs, outputs }) {
    const { server, repository, digest } = imageId("DebianImage", id);
    const access =
      inputs && isRecord(inputs["registry"]) ? (inputs["registry"] as unknown as RegistryAccess) : { server };
    let observed: DebianImageObserved | undefined;
    try {
      observed = await backends.images.readImage(
        access,
        text(inputs?.["repository"]) ?? repository,
        text(outputs?.["digest"]) || digest,
      );
    } catch (error) {
      // What a registry of this machine holds is still on its disk when it is stopped, and `up` can start it.
      const registry = await backends.registries.findRegistry(access.server);
      if (!inputs || !outputs || registry?.powerState !== "stopped") throw error;
      return { id, inputs, outputs };
    }
    if (!observed) return undefined;
    const known = inputs ?? {
      registry: { server },
      repository,
      ...withoutEmpty((await backends.images.readMadeFrom(access, repository, digest)) ?? {}),
    };
    return { id, inputs: known, outputs: { ...known, ...outputs, ...observed } };
  },

  async update({ backends }, { oldOutputs, inputs, preview, op }) {
    if (preview) return { ...oldOutputs, ...inputs, digest: unknown, reference: unknown };
    return outputs(inputs, await backends.images.buildDebianImage(op, spec(inputs)));
  },

  // Images are content: a registry may serve them to others, so the digest is retained.
  async delete() {},
};
