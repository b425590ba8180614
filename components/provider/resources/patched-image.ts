import type { PatchedFound, PatchObserved, PatchSpec, RegistryAccess, SigningKey } from "../backends.js";
import { PropertyError, unknown, type Properties, type Resource } from "../resource.js";
import { inputDifferences } from "./difference.js";
import { imageId, Rules, text } from "./rules.js";
import { isRecord, validate } from "./schema.js";
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

function outputs(inputs: Properties, { digest, ...observed }: PatchObserved): Properties {
  return { ...inputs, ...observed, patchedDigest: digest };
}

const observedNames = [
  ...["patchedDigest", "reference", "fixableBefore", "fixableAfter", "remaining", "databaseDigest", "scannedAt"],
  "vexReference",
];

function foreseen(inputs: Properties): Properties {
  return { ...Object.fromEntries(observedNames.map((name) => [name, unknown])), ...inputs };
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
    checkSigner(rules, "imageSigner", known["imageSigner"]);
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
    return inputDifferences(oldInputs, inputs, [], [/^registry\.(username|password|ca)$/, /^(imageSigner|database)\b/]);
  },

  async create({ backends }, { inputs, preview, op }) {
    if (preview) return { id: "", outputs: foreseen(inputs) };
    const observed = await backends.patcher.patch(op, spec(inputs));
    return { id: observed.reference, outputs: outputs(inputs, observed) };
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
    const { original, tag, observed, imageSigner } = found.made;
    const { server, repository } = named;
    const { databaseDigest } = observed;
    const told: Properties = {
      ...{ registry: { server }, repository, digest: original, databaseDigest, ...(tag === undefined ? {} : { tag }) },
      imageSigner: imageSigner as unknown as Properties,
    };
    return { id, inputs: told, outputs: outputs(told, observed) };
  },

  async update({ backends }, { oldInputs, oldOutputs, inputs, preview, op }) {
    if (preview) return { ...oldOutputs, ...foreseen(inputs) };
    // An earlier patch of the same original is kept while it is good.
    const isSame = oldInputs["digest"] === inputs["digest"] && oldInputs["repository"] === inputs["repository"];
    const previous = isSame ? text(oldOutputs["patchedDigest"]) : undefined;
    const observed = await backends.patcher.patch(op, spec(inputs), previous);
    return outputs(inputs, observed);
  },

  // Hosts may run the image, and its attestation belongs to it: both stay, as the original does.
  async delete() {},
};
