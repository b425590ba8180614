import type { SealFound, SealObserved } from "../backends/index.js";
import { unknown, type Properties, type Resource } from "../protocol/resource.js";
import { inputDifferences } from "../schema/difference.js";
import { imageId, Rules, strings, text, withComputed } from "./rules.js";
import { checkInputs, decodeInputs, storedInputs, whenKnown } from "../schema/decode.js";
import type { SigningKey } from "../schema/inputs.js";
import { isRecord } from "../schema/schema.js";
import { checkSigner } from "./signers.js";

const type = "palisade:index:SealedImage";

const signers = ["layerSigner", "sealSigner", "imageSigner"] as const;

function outputs(inputs: Properties, observed: SealObserved): Properties {
  return { ...inputs, ...observed };
}

/** Outputs in a preview: what only the sealing decides is unknown. */
function expectedOutputs(inputs: Properties): Properties {
  const { registry, repository, digest } = inputs;
  const server = isRecord(registry) ? registry["server"] : unknown;
  const place = [server, repository, digest];
  return {
    ...inputs,
    reference: place.every((one) => typeof one === "string") ? `${place[0]}/${place[1]}@${place[2]}` : unknown,
    layerKey: inputs["layerKey"] ?? unknown,
    sealKeyId: inputs["sealKeyId"] ?? unknown,
    sealDigest: unknown,
    rootHashes: unknown,
    reusedLayers: unknown,
  };
}

/** The seal that the outputs hold; undefined while one of its parts is missing. */
function sealOf(old: Properties | undefined): SealObserved | undefined {
  if (!old) return undefined;
  const [digest, reference, sealDigest] = [text(old["digest"]), text(old["reference"]), text(old["sealDigest"])];
  const [layerKey, sealKeyId, reusedLayers] = [text(old["layerKey"]), text(old["sealKeyId"]), old["reusedLayers"]];
  if (digest === undefined || reference === undefined || sealDigest === undefined) return undefined;
  if (layerKey === undefined || sealKeyId === undefined || typeof reusedLayers !== "number") return undefined;
  if (old["rootHashes"] === undefined) return undefined;
  return { digest, reference, sealDigest, rootHashes: strings(old["rootHashes"]), layerKey, sealKeyId, reusedLayers };
}

/** The seal of a container image. Any change seals what is not sealed yet. Earlier seals stay in the registry. */
export const sealedImage: Resource = {
  type,
  defaultTimeouts: { create: 1800, update: 1800, delete: 60 },

  async check({ backends }, { inputs }) {
    const { layerKey: _layerKey, sealKeyId: _sealKeyId, ...given } = inputs;
    const { inputs: known, failures } = checkInputs(type, given);
    const rules = new Rules(failures);
    if (isRecord(known.registry)) rules.server("registry.server", known.registry.server);
    rules.repository("repository", known.repository);
    rules.digest("digest", known.digest);
    for (const name of signers) checkSigner(rules, name, known[name]);
    if (failures.length > 0) return { inputs: known, failures };
    const layerSigner = whenKnown<SigningKey>(known.layerSigner);
    const sealSigner = whenKnown<SigningKey>(known.sealSigner);
    if (!layerSigner || !sealSigner) {
      return { inputs: { ...known, layerKey: unknown, sealKeyId: unknown }, failures };
    }
    // The inputs hold who signs, not only where the keys lie: another certificate in the same file seals again.
    return withComputed(known, async () => ({ ...(await backends.sealer.identify({ layerSigner, sealSigner })) }));
  },

  diff({ oldInputs, inputs }) {
    // Neither how the registry is reached nor where a key lies changes what was published. layerKey and sealKeyId say
    // who signed.
    return inputDifferences(
      oldInputs,
      inputs,
      [],
      [/^registry\.(username|password|ca)$/, /^(layerSigner|sealSigner)\b/, /^imageSigner\.(keyFile|pkcs11Uri)$/],
    );
  },

  async create({ backends }, { inputs, preview, op }) {
    if (preview) return { id: "", outputs: expectedOutputs(inputs) };
    const observed = await backends.sealer.seal(op, decodeInputs(type, inputs));
    return { id: observed.reference, outputs: outputs(inputs, observed) };
  },

  async read({ backends }, { id, inputs, outputs: old }) {
    const named = imageId("SealedImage", id);
    const stored = storedInputs(type, inputs);
    const access = stored.registry ?? { server: named.server };
    let found: SealFound | undefined;
    try {
      found = await backends.sealer.readSeal(
        access,
        stored.repository ?? named.repository,
        text(old?.["digest"]) ?? named.digest,
        sealOf(old),
        stored.sealSigner?.certificateFile,
      );
    } catch (error) {
      // A registry of this machine that is stopped still has its content on disk, and `up` can start it.
      const registry = await backends.registries.findRegistry(access.server);
      if (!inputs || !old || registry?.powerState !== "stopped") throw error;
      return { id, inputs, outputs: old };
    }
    if (!found) return undefined;
    const { signers: keys, ...observed } = found;
    const { layerKey, sealKeyId } = observed;
    const { server, repository, digest } = named;
    const known = inputs ?? {
      ...{ registry: { server }, repository, digest, layerKey, sealKeyId },
      ...(keys && {
        layerSigner: { ...keys.layerSigner },
        sealSigner: { ...keys.sealSigner },
        ...(keys.imageSigner ? { imageSigner: { ...keys.imageSigner } } : {}),
      }),
    };
    return { id, inputs: known, outputs: outputs(known, observed) };
  },

  async update({ backends }, { oldOutputs, inputs, preview, op }) {
    if (preview) return { ...oldOutputs, ...expectedOutputs(inputs) };
    return outputs(inputs, await backends.sealer.seal(op, decodeInputs(type, inputs)));
  },

  // Hosts may run the image, so its seal stays in the registry, as the image does.
  async delete() {},
};
