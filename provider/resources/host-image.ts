import path from "node:path";
import type { HostImageBuildSpec, HostImageObserved, Operation } from "../backends/index.js";
import type { Context, Properties, Resource } from "../protocol/resource.js";
import { unknown } from "../protocol/resource.js";
import { inputDifferences } from "../schema/difference.js";
import { oneOf, Rules, text } from "./rules.js";
import { checkInputs, decodeInputs, whenKnown } from "../schema/decode.js";
import type { HostImageBuild } from "../schema/inputs.js";
import { isRecord } from "../schema/schema.js";

const type = "palisade:index:HostImage";

const modes = ["enforce", "audit", "jit"] as const;

const buildSpec = ({ keysDirectory, mode }: HostImageBuild): HostImageBuildSpec => ({
  keysDirectory,
  mode: oneOf("build.mode", mode, modes),
});

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
 * The image of a host. A local build runs again when any of its inputs has changed. The image it replaces stays in the
 * store while a machine uses it.
 */
export const hostImage: Resource = {
  type,
  defaultTimeouts: { create: 1800, update: 1800, delete: 60 },

  async check({ backends }, { inputs }) {
    const { inputsHash: _computed, ...given } = inputs;
    const { inputs: known, failures } = checkInputs(type, given);
    const rules = new Rules(failures);
    if ((known.digest === undefined) === (known.build === undefined)) {
      rules.fail("digest", "give exactly one of `digest` (an image in the store) and `build` (a local build)");
    }
    rules.digest("digest", known.digest);
    if (isRecord(known.build)) {
      rules.oneOf("build.mode", known.build.mode, modes);
      const folder = text(known.build.keysDirectory);
      if (folder !== undefined && !path.isAbsolute(folder)) {
        rules.fail("build.keysDirectory", `"${folder}" is not an absolute path`);
      }
    }
    if (failures.length > 0 || !isRecord(known.build)) return { inputs: known, failures };
    const build = whenKnown<HostImageBuild>(known.build);
    if (!build) return { inputs: { ...known, inputsHash: unknown }, failures };
    try {
      const inputsHash = await backends.hostImages.inputsHash(buildSpec(build));
      return { inputs: { ...known, inputsHash }, failures };
    } catch (error) {
      rules.fail("build", `an input of the build cannot be read: ${(error as Error).message}`);
      return { inputs: known, failures };
    }
  },

  diff({ oldInputs, inputs }) {
    return inputDifferences(oldInputs, inputs);
  },

  async create(context, { inputs, preview, op }) {
    if (preview) return { id: "", outputs: await expectedOutputs(context, inputs) };
    const image = await buildOrFind(context, inputs, op);
    return { id: image.digest, outputs: outputs(inputs, image) };
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
    if (preview) return expectedOutputs(context, inputs);
    const image = await buildOrFind(context, inputs, op);
    const before = text(oldOutputs["imageDigest"]);
    // A machine may still run from it. Whoever releases it last removes it.
    if (before && before !== image.digest) await context.backends.hostImages.release(op, before);
    return outputs(inputs, image);
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

/**
 * Outputs in a preview: all of them when the image is in the store already; else those that a build decides are
 * unknown.
 */
async function expectedOutputs({ backends }: Context, inputs: Properties): Promise<Properties> {
  const hash = inputs["inputsHash"];
  const observed =
    typeof hash === "string"
      ? await backends.hostImages.findBuilt(hash)
      : await backends.hostImages.read(text(inputs["digest"]) ?? "");
  const { build } = inputs;
  const mode = (isRecord(build) ? build["mode"] : undefined) ?? unknown;
  return observed ? outputs(inputs, observed) : { ...inputs, ...unknownOutputs, mode, inputsHash: hash ?? "" };
}

async function buildOrFind({ backends }: Context, inputs: Properties, op: Operation): Promise<HostImageObserved> {
  const { build, digest = "" } = decodeInputs(type, inputs);
  if (build) return backends.hostImages.build(op, buildSpec(build));
  const observed = await backends.hostImages.read(digest);
  if (observed) return observed;
  throw new Error(
    `digest: ${digest} is not in the image store of this machine; build it here (\`build\`), or copy it there`,
  );
}
