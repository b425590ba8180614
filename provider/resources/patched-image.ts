import type { Operation, PatchedFound, PatchObserved, PatchSpec } from "../backends/index.js";
import {
  isUnknown,
  PartialFailure,
  unknown,
  type Context,
  type Properties,
  type Resource,
} from "../protocol/resource.js";
import { inputDifferences } from "../schema/difference.js";
import { imageId, Rules, text, withComputed } from "./rules.js";
import { checkInputs, decodeInputs, storedInputs } from "../schema/decode.js";
import type { PatchedImageInputs } from "../schema/inputs.js";
import { isRecord } from "../schema/schema.js";
import { checkSigner } from "./signers.js";

const type = "palisade:index:PatchedImage";

function spec({ registry, repository, digest, tag, database, imageSigner }: PatchedImageInputs): PatchSpec {
  return {
    registry,
    repository,
    digest,
    ...(tag === undefined ? {} : { tag }),
    ...(database === undefined ? {} : { database }),
    imageSigner,
  };
}

/** The keys that publishing into a channel needs. */
const channelSigners = ["layerSigner", "sealSigner"] as const;

/**
 * Seals the patched image and moves the channel to it. When either fails, the channel stays where it was.
 *
 * @param from the digest that the channel is to be moved from. Default: any.
 * @returns the digest that the channel has then; undefined when the inputs name no channel.
 */
async function publish(
  { backends }: Context,
  op: Operation,
  inputs: PatchedImageInputs,
  digest: string,
  from?: string,
): Promise<string | undefined> {
  const { registry, repository, channel, imageSigner, layerSigner, sealSigner } = inputs;
  // Check has refused a channel without the keys.
  if (channel === undefined || !layerSigner || !sealSigner) return undefined;
  const image = { registry, repository, digest, sealSigner, imageSigner };
  await backends.sealer.seal(op, { ...image, layerSigner });
  return (await backends.channels.publish(op, { ...image, channel }, from)).digest;
}

/**
 * Patches the image and publishes the result.
 *
 * @param before earlier results for the same original.
 * @throws PartialFailure when the image is patched and the channel could not be moved: the next run tries that again.
 */
async function patchAndPublish(
  context: Context,
  op: Operation,
  inputs: Properties,
  id: string | undefined,
  before: { patched?: string | undefined; channel?: string | undefined } = {},
): Promise<{ id: string; outputs: Properties }> {
  const known = decodeInputs(type, inputs);
  const observed = await context.backends.patcher.patch(op, spec(known), before.patched);
  const result = { id: id ?? observed.reference, outputs: outputs(inputs, observed) };
  try {
    const channelDigest = await publish(context, op, known, observed.digest, before.channel);
    return channelDigest === undefined ? result : { ...result, outputs: { ...result.outputs, channelDigest } };
  } catch (error) {
    const kept: Properties = before.channel === undefined ? {} : { channelDigest: before.channel };
    throw new PartialFailure(result.id, { ...result.outputs, ...kept }, [(error as Error).message]);
  }
}

function outputs(inputs: Properties, { digest, ...observed }: PatchObserved): Properties {
  return { ...inputs, ...observed, patchedDigest: digest };
}

const observedNames = [
  ...["patchedDigest", "reference", "fixableBefore", "fixableAfter", "remaining", "databaseDigest", "scannedAt"],
  "vexReference",
];

/** Outputs in a preview: what only the patching decides is unknown. */
function expectedOutputs(inputs: Properties): Properties {
  const names = inputs["channel"] === undefined ? observedNames : [...observedNames, "channelDigest"];
  return { ...Object.fromEntries(names.map((name) => [name, unknown])), ...inputs };
}

/**
 * An image with the updates that fix its known vulnerabilities. A change scans again. Images pushed before stay in the
 * registry.
 */
export const patchedImage: Resource = {
  type,
  defaultTimeouts: { create: 1200, update: 1200, delete: 60 },

  async check({ backends }, { inputs }) {
    const { databaseDigest: _computed, ...given } = inputs;
    const { inputs: known, failures } = checkInputs(type, given);
    const rules = new Rules(failures);
    if (isRecord(known.registry)) rules.server("registry.server", known.registry.server);
    rules.repository("repository", known.repository);
    rules.digest("digest", known.digest);
    rules.tag("tag", known.tag);
    rules.matches("database", known.database, /^\//, "an absolute path");
    rules.dnsLabel("channel", known.channel);
    for (const name of ["imageSigner", ...channelSigners] as const) checkSigner(rules, name, known[name]);
    for (const name of channelSigners) {
      if ((known.channel === undefined) === (known[name] === undefined)) continue;
      rules.fail(
        known.channel === undefined ? "channel" : name,
        `channel and ${channelSigners.join(" and ")} go together: what is published into a channel is sealed before`,
      );
    }
    if (failures.length > 0) return { inputs: known, failures };
    const { database } = known;
    if (isUnknown(database)) return { inputs: { ...known, databaseDigest: unknown }, failures };
    // A database with another content scans again.
    return withComputed(known, async () => ({ databaseDigest: await backends.patcher.databaseDigest(database) }));
  },

  diff({ oldInputs, inputs }) {
    // Neither how the registry is reached nor where keys and database lie changes the content of an image.
    return inputDifferences(
      oldInputs,
      inputs,
      [],
      [/^registry\.(username|password|ca)$/, /^(imageSigner|layerSigner|sealSigner|database)\b/],
    );
  },

  async create(context, { inputs, preview, op }) {
    if (preview) {
      await context.backends.patcher.requireTools();
      return { id: "", outputs: expectedOutputs(inputs) };
    }
    return patchAndPublish(context, op, inputs, undefined);
  },

  async read({ backends }, { id, inputs, outputs: old }) {
    const named = imageId("PatchedImage", id);
    const stored = storedInputs(type, inputs);
    const access = stored.registry ?? { server: named.server };
    let found: PatchedFound | undefined;
    try {
      found = await backends.patcher.readPatched(
        access,
        stored.repository ?? named.repository,
        text(old?.["patchedDigest"]) ?? named.digest,
        inputs !== undefined && old !== undefined,
      );
    } catch (error) {
      // A registry of this machine that is stopped still has its content on disk, and `up` can start it.
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
    const known: Properties = {
      ...{ registry: { server }, repository, digest: original, databaseDigest, ...(tag === undefined ? {} : { tag }) },
      imageSigner: { ...imageSigner },
    };
    if (channel) {
      const { name, layerSigner, sealSigner } = channel;
      Object.assign(known, { channel: name, layerSigner: { ...layerSigner }, sealSigner: { ...sealSigner } });
    }
    const channelDigest = channel?.digest;
    return {
      id,
      inputs: known,
      outputs: { ...outputs(known, observed), ...(channelDigest === undefined ? {} : { channelDigest }) },
    };
  },

  async update(context, { id, oldInputs, oldOutputs, inputs, preview, op }) {
    if (preview) {
      await context.backends.patcher.requireTools();
      return { ...oldOutputs, ...expectedOutputs(inputs) };
    }
    const isSame = (...names: string[]) => names.every((name) => oldInputs[name] === inputs[name]);
    // An earlier patch of the same original is kept while nothing in it is fixable.
    const patched = isSame("digest", "repository") ? text(oldOutputs["patchedDigest"]) : undefined;
    // A new original is a release and goes into the channel. A new scan of the same one does not move back a channel
    // that others moved.
    const channel = isSame("digest", "repository", "channel") ? text(oldOutputs["channelDigest"]) : undefined;
    return (await patchAndPublish(context, op, inputs, id, { patched, channel })).outputs;
  },

  // Hosts may run the image, so it and its attestation stay in the registry, as the original does.
  async delete() {},
};
