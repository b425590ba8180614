import type { RegistryAccess, SealFound, SealObserved, SealSpec, SigningKey } from "../backends/index.js";
import { PropertyError, type CheckFailure } from "../backends/errors.js";
import { unknown, type Properties, type Resource } from "../protocol/resource.js";
import { inputDifferences } from "../schema/difference.js";
import { anyUnknown, imageId, Rules, text } from "./rules.js";
import { isRecord, validate } from "../schema/schema.js";
import { checkSigner } from "./signers.js";

const type = "palisade:index:SealedImage";

const signers = ["layerSigner", "sealSigner", "imageSigner"];

function spec(inputs: Properties): SealSpec {
  const key = (name: string) => inputs[name] as unknown as SigningKey;
  return {
    registry: inputs["registry"] as unknown as RegistryAccess,
    repository: inputs["repository"] as string,
    digest: inputs["digest"] as string,
    layerSigner: key("layerSigner"),
    sealSigner: key("sealSigner"),
    ...(inputs["imageSigner"] === undefined ? {} : { imageSigner: key("imageSigner") }),
  };
}

function outputs(inputs: Properties, observed: SealObserved): Properties {
  return { ...inputs, ...observed };
}

/** What can be known before it is sealed. */
function foreseen(inputs: Properties): Properties {
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

/** What was observed before; undefined while an output is missing. */
function known(old: Properties | undefined): SealObserved | undefined {
  if (!old) return undefined;
  const names = ["digest", "reference", "sealDigest", "rootHashes", "layerKey", "sealKeyId", "reusedLayers"];
  if (names.some((name) => old[name] === undefined)) return undefined;
  return Object.fromEntries(names.map((name) => [name, old[name]])) as unknown as SealObserved;
}

/** The seal of a container image. Any change seals again, which does what is lacking; seals of before stay in the registry. */
export const sealedImage: Resource = {
  type,
  defaultTimeouts: { create: 1800, update: 1800, delete: 60 },

  async check({ backends }, { inputs }) {
    const { layerKey: _layerKey, sealKeyId: _sealKeyId, ...given } = inputs;
    const checked = validate(type, given);
    const rules = new Rules(checked.failures);
    const known = checked.inputs;
    if (isRecord(known["registry"])) rules.server("registry.server", known["registry"]["server"]);
    rules.repository("repository", known["repository"]);
    rules.digest("digest", known["digest"]);
    for (const name of signers) checkSigner(rules, name, known[name]);
    if (checked.failures.length > 0) return checked;
    // Who signs, beside where the keys lie: another certificate in the same file seals again.
    if (anyUnknown(known["layerSigner"]) || anyUnknown(known["sealSigner"])) {
      Object.assign(known, { layerKey: unknown, sealKeyId: unknown });
      return checked;
    }
    try {
      Object.assign(known, await backends.sealer.identify(spec(known)));
    } catch (error) {
      if (!(error instanceof PropertyError)) throw error;
      checked.failures.push(...(error.failures satisfies CheckFailure[]));
    }
    return checked;
  },

  diff({ oldInputs, inputs }) {
    // Neither how the registry is reached nor where a key lies changes what was published; layerKey and sealKeyId tell whose it is.
    return inputDifferences(
      oldInputs,
      inputs,
      [],
      [/^registry\.(username|password|ca)$/, /^(layerSigner|sealSigner)\b/, /^imageSigner\.(keyFile|pkcs11Uri)$/],
    );
  },

  async create({ backends }, { inputs, preview, op }) {
    if (preview) return { id: "", outputs: foreseen(inputs) };
    const observed = await backends.sealer.seal(op, spec(inputs));
    return { id: observed.reference, outputs: outputs(inputs, observed) };
  },

  async read({ backends }, { id, inputs, outputs: old }) {
    const named = imageId("SealedImage", id);
    const access =
      inputs && isRecord(inputs["registry"])
        ? (inputs["registry"] as unknown as RegistryAccess)
        : { server: named.server };
    const sealSigner = inputs?.["sealSigner"];
    let found: SealFound | undefined;
    try {
      found = await backends.sealer.readSeal(
        access,
        text(inputs?.["repository"]) ?? named.repository,
        text(old?.["digest"]) ?? named.digest,
        known(old),
        isRecord(sealSigner) ? text(sealSigner["certificateFile"]) : undefined,
      );
    } catch (error) {
      // What a registry of this machine holds is still on its disk when it is stopped, and `up` can start it.
      const registry = await backends.registries.findRegistry(access.server);
      if (!inputs || !old || registry?.powerState !== "stopped") throw error;
      return { id, inputs, outputs: old };
    }
    if (!found) return undefined;
    const { signers: keys, ...observed } = found;
    const { layerKey, sealKeyId } = observed;
    const { server, repository, digest } = named;
    const told: Properties = inputs ?? {
      ...{ registry: { server }, repository, digest, layerKey, sealKeyId },
      ...(keys as unknown as Properties | undefined),
    };
    return { id, inputs: told, outputs: outputs(told, observed) };
  },

  async update({ backends }, { oldOutputs, inputs, preview, op }) {
    if (preview) return { ...oldOutputs, ...foreseen(inputs) };
    return outputs(inputs, await backends.sealer.seal(op, spec(inputs)));
  },

  // A seal is content, and hosts may run the image: it stays, as the image does.
  async delete() {},
};
