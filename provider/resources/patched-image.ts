import type {
  Operation,
  PatchedFound,
  PatchObserved,
  PatchSpec,
  RegistryAccess,
  SigningKey,
} from "../backends/index.js";
import { PropertyError } from "../backends/errors.js";
import { PartialFailure, unknown, type Context, type Properties, type Resource } from "../protocol/resource.js";
import { inputDifferences } from "../schema/difference.js";
import { imageId, Rules, text } from "./rules.js";
import { isRecord, validate } from "../schema/schema.js";
import { checkSigner } from "./signers.js";

const type = "palisade:index:PatchedImage";

function spec(inputs: Properties): PatchSpec {
  const [tag, database] = [text(inputs["tag"]), text(inputs["database"])];
  return {
    registry: inputs["registry"] as unknown as RegistryAccess,
    repository: inputs["repository"] as string,
    digest: inputs["digest"] as string,
    ...(tag === undefined ? {} : { tag }),
    ...(database === undefined ? {} : { database }),
    imageSigner: inputs["imageSigner"] as unknown as SigningKey,
  };
}

/** Keys without which nothing can be published into a channel. */
const channelSigners = ["layerSigner", "sealSigner"] as const;

/**
 * Seals what was patched and moves the channel to it. Whatever fails, the channel stays where it was.
 *
 * @param from where the channel is to be moved from; default: anywhere.
 * @returns what the channel leads to; undefined when there is none.
 */
async function publish(
  { backends }: Context,
  op: Operation,
  inputs: Properties,
  digest: string,
  from?: string,
): Promise<string | undefined> {
  const channel = text(inputs["channel"]);
  if (channel === undefined) return undefined;
  const { registry, repository, imageSigner } = spec(inputs);
  const [layerSigner, sealSigner] = channelSigners.map((name) => inputs[name] as unknown as SigningKey);
  const image = { registry, repository, digest, sealSigner: sealSigner!, imageSigner };
  await backends.sealer.seal(op, { ...image, layerSigner: layerSigner! });
  return (await backends.channels.publish(op, { ...image, channel }, from)).digest;
}

/**
 * Patches and publishes.
 *
 * @param before what there was of the same original.
 * @throws PartialFailure when the image is patched and the channel could not be moved: the next run tries that again.
 */
async function work(
  context: Context,
  op: Operation,
  inputs: Properties,
  id: string | undefined,
  before: { patched?: string | undefined; channel?: string | undefined } = {},
): Promise<{ id: string; outputs: Properties }> {
  const observed = await context.backends.patcher.patch(op, spec(inputs), before.patched);
  const made = { id: id ?? observed.reference, outputs: outputs(inputs, observed) };
  try {
    const channelDigest = await publish(context, op, inputs, observed.digest, before.channel);
    return channelDigest === undefined ? made : { ...made, outputs: { ...made.outputs, channelDigest } };
  } catch (error) {
    const kept: Properties = before.channel === undefined ? {} : { channelDigest: before.channel };
    throw new PartialFailure(made.id, { ...made.outputs, ...kept }, [(error as Error).message]);
  }
}

function outputs(inputs: Properties, { digest, ...observed }: PatchObserved): Properties {
  return { ...inputs, ...observed, patchedDigest: digest };
}

const observedNames = [
  ...["patchedDigest", "reference", "fixableBefore", "fixableAfter", "remaining", "databaseDigest", "scannedAt"],
  "vexReference",
];

function foreseen(inputs: Properties): Properties {
  const names = inputs["channel"] === undefined ? observedNames : [...observedNames, "channelDigest"];
  return { ...Object.fromEntries(names.map((name) => [name, unknown])), ...inputs };
}

/** An image with the updates that fix its known vulnerabilities. A change scans again; the images pushed before stay in the registry. */
export const patchedImage: Resource = {
  type,
  defaultTimeouts: { create: 1200, update: 1200, delete: 60 },

  async check({ backends }, { inputs }) {
    const { databaseDigest: _computed, ...given } = inputs;
    const checked = validate(type, given);
    const rules = new Rules(checked.failures);
    const known = checked.inputs;
    if (isRecord(known["registry"])) rules.server("registry.server", known["registry"]["server"]);
    rules.repository("repository", known["repository"]);
    rules.digest("digest", known["digest"]);
    rules.tag("tag", known["tag"]);
    rules.matches("database", known["database"], /^\//, "an absolute path");
    rules.dnsLabel("channel", known["channel"]);
    for (const name of ["imageSigner", ...channelSigners]) checkSigner(rules, name, known[name]);
    for (const name of channelSigners) {
      if ((known["channel"] === undefined) === (known[name] === undefined)) continue;
      rules.fail(
        known["channel"] === undefined ? "channel" : name,
        `channel and ${channelSigners.join(" and ")} go together: what is published into a channel is sealed before`,
      );
    }
    if (checked.failures.length > 0) return checked;
    if (known["database"] !== undefined && typeof known["database"] !== "string") {
      known["databaseDigest"] = unknown;
      return checked;
    }
    try {
      // Another content of the database scans again.
      known["databaseDigest"] = await backends.patcher.databaseDigest(text(known["database"]));
    } catch (error) {
      if (!(error instanceof PropertyError)) throw error;
      checked.failures.push(...error.failures);
    }
    return checked;
  },

  diff({ oldInputs, inputs }) {
    // Neither how the registry is reached, nor where key and database lie, changes what an image has.
    return inputDifferences(
      oldInputs,
      inputs,
      [],
      [/^registry\.(username|password|ca)$/, /^(imageSigner|layerSigner|sealSigner|database)\b/],
    );
  },

  async create(context, { inputs, preview, op }) {
    if (preview) {
      await context.backends.patcher.demandTools();
      return { id: "", outputs: foreseen(inputs) };
    }
    return work(context, op, inputs, undefined);
  },

  async read({ backends }, { id, inputs, outputs: old }) {
    const named = imageId("PatchedImage", id);
    const access =
      inputs && isRecord(inputs["registry"])
        ? (inputs["registry"] as unknown as RegistryAccess)
        : { server: named.server };
    let found: PatchedFound | undefined;
    try {
      found = await backends.patcher.readPatched(
        access,
        text(inputs?.["repository"]) ?? named.repository,
        text(old?.["patchedDigest"]) ?? named.digest,
        inputs !== undefined && old !== undefined,
      );
    } catch (error) {
      // What a registry of this machine holds is still on its disk when it is stopped, and `up` can start it.
      const registry = await backends.registries.findRegistry(access.server);
      if (!inputs || !old || registry?.powerState !== "stopped") throw error;
      return { id, inputs, outputs: old };
    }
    if (!found) return undefined;
    if (inputs && old) return { id, inputs, outputs: old };
    if (!found.made) {
      throw new Error(
        `PatchedImage: ${id} cannot be imported, as it is no image that was patched and attested with the operator's key; create the ` +
          "resource, which patches the original when it has to",
      );
    }
    const { original, tag, observed, imageSigner, channel } = found.made;
    const { server, repository } = named;
    const { databaseDigest } = observed;
    const told: Properties = {
      ...{ registry: { server }, repository, digest: original, databaseDigest, ...(tag === undefined ? {} : { tag }) },
      imageSigner: imageSigner as unknown as Properties,
    };
    if (channel) {
      const { name, layerSigner, sealSigner } = channel;
      Object.assign(told, { channel: name, layerSigner, sealSigner });
    }
    const channelDigest = channel?.digest;
    return {
      id,
      inputs: told,
      outputs: { ...outputs(told, observed), ...(channelDigest === undefined ? {} : { channelDigest }) },
    };
  },

  async update(context, { id, oldInputs, oldOutputs, inputs, preview, op }) {
    if (preview) {
      await context.backends.patcher.demandTools();
      return { ...oldOutputs, ...foreseen(inputs) };
    }
    const isSame = (...names: string[]) => names.every((name) => oldInputs[name] === inputs[name]);
    // An earlier patch of the same original is kept while it is good.
    const patched = isSame("digest", "repository") ? text(oldOutputs["patchedDigest"]) : undefined;
    // A new original is a release and goes into the channel; another look at the same one does not undo what others did there.
    const channel = isSame("digest", "repository", "channel") ? text(oldOutputs["channelDigest"]) : undefined;
    return (await work(context, op, inputs, id, { patched, channel })).outputs;
  },

  // Hosts may run the image, and its attestation belongs to it: both stay, as the original does.
  async delete() {},
};
