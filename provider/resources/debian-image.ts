import type { DebianImageContent, DebianImageObserved, DebianImageSpec } from "../backends/index.js";
import type { Properties, Resource } from "../protocol/resource.js";
import { unknown } from "../protocol/resource.js";
import { inputDifferences } from "../schema/difference.js";
import { imageId, layerPathProblem, Rules, text } from "./rules.js";
import { checkInputs, decodeInputs, storedInputs, whenKnown } from "../schema/decode.js";
import type { DebianImageInputs } from "../schema/inputs.js";
import { isRecord, show } from "../schema/schema.js";

const type = "palisade:index:DebianImage";

type ContentInputs = Omit<DebianImageInputs, "registry">;

function contentOf(inputs: ContentInputs): DebianImageContent {
  const { entrypoint = [], command = [], environment = {}, files = {}, ...rest } = inputs;
  return { ...rest, entrypoint, command, environment, files };
}

function spec({ registry, ...content }: DebianImageInputs): DebianImageSpec {
  return { registry, ...contentOf(content) };
}

function outputs(inputs: Properties, observed: DebianImageObserved): Properties {
  return { ...inputs, digest: observed.digest, reference: observed.reference };
}

/**
 * Inputs without empty lists and maps: they mean the same as none, and in one form an imported image equals its
 * program.
 */
function withoutEmpty(inputs: Properties): Properties {
  const optional = ["entrypoint", "command", "environment", "files"];
  return Object.fromEntries(
    Object.entries(inputs).filter(
      ([name, value]) => !optional.includes(name) || !/^(\[\]|\{\})$/.test(JSON.stringify(value)),
    ),
  );
}

/** A container image made from Debian packages. Any change builds again. Images pushed before stay in the registry. */
export const debianImage: Resource = {
  type,
  defaultTimeouts: { create: 900, update: 900, delete: 60 },

  async check({ backends }, { inputs }) {
    const { inputsHash: _computed, ...given } = inputs;
    const { inputs: known, failures } = checkInputs(type, given);
    const rules = new Rules(failures);
    if (isRecord(known.registry)) rules.server("registry.server", known.registry.server);
    rules.repository("repository", known.repository);
    rules.tag("tag", known.tag);
    rules.matches("suite", known.suite, /^[a-z][a-z0-9-]*$/, "the name of a Debian suite");
    if (Array.isArray(known.packages)) {
      if (known.packages.length === 0) rules.fail("packages", "at least one package is needed");
      known.packages.forEach((name, index) =>
        rules.matches(`packages[${index}]`, name, /^[a-z0-9][a-z0-9+.-]+$/, "the name of a Debian package"),
      );
    }
    rules.matches("workingDirectory", known.workingDirectory, /^\/[^\0]*$/, "an absolute path");
    const files = isRecord(known.files) ? Object.keys(known.files) : [];
    for (const file of files) {
      const problem = layerPathProblem(file);
      if (problem) rules.fail(`files[${JSON.stringify(file)}]`, `${show(file)} ${problem}`);
      const folder = files.find((other) => other !== "" && file.startsWith(`${other}/`));
      if (folder !== undefined) {
        rules.fail(`files[${JSON.stringify(file)}]`, `${show(file)} lies in ${show(folder)}, which is a file`);
      }
    }
    for (const [name, value] of Object.entries(isRecord(known.environment) ? known.environment : {})) {
      const at = `environment[${JSON.stringify(name)}]`;
      rules.matches(at, name, /^[^=\0]+$/, "the name of a variable: not empty, without '=' and without a zero byte");
      if (text(value)?.includes("\0")) rules.fail(at, "holds a zero byte, where a value ends");
    }
    for (const field of ["entrypoint", "command"] as const) {
      const words = known[field];
      if (!Array.isArray(words)) continue;
      words.forEach((word, index) => {
        if (text(word)?.includes("\0")) rules.fail(`${field}[${index}]`, "holds a zero byte, where a word ends");
      });
    }
    if (failures.length > 0) return { inputs: known, failures };
    // The hash covers what decides the content beside the inputs themselves: a change of it builds again.
    const { registry: _registry, ...rest } = known;
    const content = whenKnown<ContentInputs>(rest);
    const inputsHash = content ? await backends.images.inputsHash(contentOf(content)) : unknown;
    return { inputs: withoutEmpty({ ...known, inputsHash }), failures };
  },

  diff({ oldInputs, inputs }) {
    // How the registry is reached does not change what was pushed.
    return inputDifferences(oldInputs, inputs, [], [/^registry\.(username|password|ca)$/]);
  },

  async create({ backends }, { inputs, preview, op }) {
    if (preview) return { id: "", outputs: { ...inputs, digest: unknown, reference: unknown } };
    const observed = await backends.images.buildDebianImage(op, spec(decodeInputs(type, inputs)));
    return { id: observed.reference, outputs: outputs(inputs, observed) };
  },

  async read({ backends }, { id, inputs, outputs }) {
    const { server, repository, digest } = imageId("DebianImage", id);
    const stored = storedInputs(type, inputs);
    const access = stored.registry ?? { server };
    let observed: DebianImageObserved | undefined;
    try {
      observed = await backends.images.readImage(
        access,
        stored.repository ?? repository,
        text(outputs?.["digest"]) || digest,
      );
    } catch (error) {
      // A registry of this machine that is stopped still has its content on disk, and `up` can start it.
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
    return outputs(inputs, await backends.images.buildDebianImage(op, spec(decodeInputs(type, inputs))));
  },

  // The registry may serve the image to others, so it stays there.
  async delete() {},
};
