import path from "node:path";
import type { HostImageBuildSpec, HostImageObserved, Operation } from "../backends/index.js";
import type { Context, Properties, Resource } from "../protocol/resource.js";
import { unknown } from "../protocol/resource.js";
import { inputDifferences } from "../schema/difference.js";
import { anyUnknown, Rules, text } from "./rules.js";
import { isRecord, validate } from "../schema/schema.js";

const type = "palisade:index:HostImage";

function buildSpec(inputs: Properties): HostImageBuildSpec | undefined {
  const build = inputs["build"];
  return isRecord(build) ? (build as unknown as HostImageBuildSpec) : undefined;
}

const outputs = (inputs: Properties, observed: HostImageObserved): Properties => ({
  ...inputs,
  inputsHash: inputs["inputsHash"] ?? "",
  imageDigest: observed.digest,
  rootHash: observed.rootHash,
  ipePolicy: observed.ipePolicy,
  mode: observed.mode,
  trustedCertificates: observed.trustedCertificates,
});

/**
 * The image of a host. A local build runs again when any of its inputs has changed; the image of before stays in the store while
 * a machine uses it.
 */
export const hostImage: Resource = {
  type,
  defaultTimeouts: { create: 1800, update: 1800, delete: 60 },

  async check({ backends }, { inputs }) {
    const { inputsHash: _computed, ...given } = inputs;
    const checked = validate(type, given);
    const known = checked.inputs;
    const rules = new Rules(checked.failures);
    if ((known["digest"] === undefined) === (known["build"] === undefined)) {
      rules.fail("digest", "give exactly one of `digest` (an image in the store) and `build` (a local build)");
    }
    rules.digest("digest", known["digest"]);
    if (isRecord(known["build"])) {
      rules.oneOf("build.mode", known["build"]["mode"], ["enforce", "audit", "jit"]);
      const folder = text(known["build"]["keysDirectory"]);
      if (folder !== undefined && !path.isAbsolute(folder)) {
        rules.fail("build.keysDirectory", `"${folder}" is not an absolute path`);
      }
    }
    const build = buildSpec(known);
    if (checked.failures.length === 0 && build) {
      try {
        known["inputsHash"] = anyUnknown(known["build"]) ? unknown : await backends.hostImages.inputsHash(build);
      } catch (error) {
        rules.fail("build", `an input of the build cannot be read: ${(error as Error).message}`);
      }
    }
    return checked;
  },

  diff({ oldInputs, inputs }) {
    return inputDifferences(oldInputs, inputs);
  },

  async create(context, { inputs, preview, op }) {
    if (preview) return { id: "", outputs: await foreseen(context, inputs) };
    const made = await realise(context, inputs, op);
    return { id: made.digest, outputs: outputs(inputs, made) };
  },

  async read({ backends }, { id, inputs, outputs: old }) {
    const observed = await backends.hostImages.read(text(old?.["imageDigest"]) ?? id);
    if (!observed) return undefined;
    const { builtFrom } = observed;
    const known: Properties =
      inputs ??
      (builtFrom ? { build: { ...builtFrom.build }, inputsHash: builtFrom.inputsHash } : { digest: observed.digest });
    return { id, inputs: known, outputs: outputs(known, observed) };
  },

  async update(context, { inputs, oldOutputs, preview, op }) {
    if (preview) return foreseen(context, inputs);
    const made = await realise(context, inputs, op);
    const before = text(oldOutputs["imageDigest"]);
    // The machine may still run from it; the last to let go removes it.
    if (before && before !== made.digest) await context.backends.hostImages.release(op, before);
    return outputs(inputs, made);
  },

  async delete({ backends }, { outputs: old, op }) {
    await backends.hostImages.release(op, text(old["imageDigest"]) ?? "");
  },
};

const unknownOutputs: Properties = {
  imageDigest: unknown,
  rootHash: unknown,
  ipePolicy: unknown,
  trustedCertificates: unknown,
};

/** In preview: all of it when the image is there already, otherwise what a build will tell. */
async function foreseen({ backends }: Context, inputs: Properties): Promise<Properties> {
  const hash = inputs["inputsHash"];
  const observed =
    typeof hash === "string"
      ? await backends.hostImages.findBuilt(hash)
      : await backends.hostImages.read(text(inputs["digest"]) ?? "");
  const mode = buildSpec(inputs)?.mode ?? unknown;
  return observed ? outputs(inputs, observed) : { ...inputs, ...unknownOutputs, mode, inputsHash: hash ?? "" };
}

async function realise({ backends }: Context, inputs: Properties, op: Operation): Promise<HostImageObserved> {
  const build = buildSpec(inputs);
  if (build) return backends.hostImages.build(op, build);
  const digest = inputs["digest"] as string;
  const observed = await backends.hostImages.read(digest);
  if (observed) return observed;
  throw new Error(
    `digest: ${digest} is not in the image store of this machine; build it here (\`build\`), or copy it there`,
  );
}
