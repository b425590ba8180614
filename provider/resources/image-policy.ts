import { createPublicKey } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import { ImagePolicySchema, type ImagePolicy } from "../../hosts/api/gen/palisade/agent/v1/images_pb.js";
import { namePatternProblem } from "../../shared/image-reference.js";
import type { AgentClient, Operation } from "../backends/index.js";
import { unknown, type Context, type Properties, type Resource, type Value } from "../protocol/resource.js";
import { differences, drift, inputDifferences } from "../schema/difference.js";
import { connectionOf, isUnreachable, removeFromHost, storedHost, tryOnHost, withHost } from "./on-host.js";
import { hostedId, Rules, strings, toValue } from "./rules.js";
import { checkInputs, decodeInputs, whenKnown, type Previewed } from "../schema/decode.js";
import type { ImagePolicyInputs } from "../schema/inputs.js";
import { anyUnknown } from "../schema/schema.js";
import { publicKeyProblem } from "./signers.js";

const type = "palisade:index:ImagePolicy";

/** The host has the same limits: hosts/agent/internal/images/policies.go. */
const maximumRepositories = 256;
const maximumKeys = 64;

const toPolicy = ({ name, repositories, keys = [] }: ImagePolicyInputs): ImagePolicy =>
  create(ImagePolicySchema, { name, repositories, keys });

const outputs = (host: Value, policy: ImagePolicy): Properties => ({
  host,
  name: policy.name,
  repositories: policy.repositories,
  keys: policy.keys,
  generation: Number(policy.generation),
});

export const imagePolicy: Resource = {
  type,
  defaultTimeouts: { create: 120, update: 120, delete: 120 },

  async check(_context, { inputs }) {
    const checked = checkInputs(type, inputs);
    checked.inputs.keys ??= [];
    checkPolicy(checked.inputs, new Rules(checked.failures));
    if (checked.failures.length === 0) normalize(checked.inputs);
    return checked;
  },

  origins(given, checked) {
    const origins: Record<string, number[][]> = {};
    for (const name of lists) {
      const [items, now] = [given[name], checked[name]];
      if (!Array.isArray(items) || !Array.isArray(now) || anyUnknown(items)) continue;
      const forms = strings(items).map((item) => canonical(name, item));
      origins[name] = strings(now).map((item) => forms.flatMap((form, index) => (form === item ? [index] : [])));
    }
    return origins;
  },

  diff({ oldInputs, oldOutputs, inputs }) {
    const changes = inputDifferences(oldInputs, inputs, [/^host\.hostId$/, /^name$/]);
    if (anyUnknown(inputs)) return changes;
    // Compare what the host holds with what was declared.
    for (const name of ["repositories", "keys"]) {
      for (const { path } of differences(name, oldOutputs[name], inputs[name])) {
        if (!changes.some((change) => change.path === path)) changes.push(drift(path));
      }
    }
    return changes;
  },

  async create(context, { inputs, preview, op }) {
    if (preview) {
      await tryOut(context, inputs, op);
      return { id: "", outputs: { ...inputs, generation: unknown } };
    }
    const known = decodeInputs(type, inputs);
    const id = `${known.host.hostId}/${known.name}`;
    return {
      id,
      outputs: await withHost(context, known.host, op, async (agent) => {
        await refuseAnother(agent, id, toPolicy(known));
        return declare(agent, known, op);
      }),
    };
  },

  async read(context, { id, inputs, outputs: old, op }) {
    const { hostId, name } = hostedId("an ImagePolicy", "policy", id);
    const connection = await connectionOf(context.backends, type, hostId, inputs, id);
    try {
      return await withHost(context, connection, op, async (agent) => {
        const policy = await agent.getImagePolicy(name);
        if (!policy) return undefined;
        const observed = outputs(toValue(connection), policy);
        const { generation: _observed, ...declared } = observed;
        return { id, inputs: inputs ?? declared, outputs: observed };
      });
    } catch (error) {
      // A machine that is proved to be stopped still has its policies on its disk.
      if (!inputs || !old || !isUnreachable(error) || !(await context.backends.agents.isStopped(hostId))) throw error;
      return { id, inputs, outputs: old };
    }
  },

  async update(context, { oldOutputs, inputs, preview, op }) {
    if (preview) {
      await tryOut(context, inputs, op);
      return { ...oldOutputs, ...inputs, generation: unknown };
    }
    const known = decodeInputs(type, inputs);
    return withHost(context, known.host, op, (agent) => declare(agent, known, op));
  },

  async delete(context, { id, inputs, outputs: old, op }) {
    op.status("removing the image policy");
    const { name } = hostedId("an ImagePolicy", "policy", id);
    await removeFromHost(context, storedHost(type, inputs, old), { kind: "image policy", name }, op);
  },
};

/** Refuses a policy of the same name that differs. An equal one, e.g. from a killed `up`, is adopted. */
async function refuseAnother(agent: AgentClient, id: string, desired: ImagePolicy): Promise<void> {
  const present = await agent.getImagePolicy(desired.name);
  if (!present) return;
  for (const field of ["repositories", "keys"] as const) {
    if (JSON.stringify(present[field]) !== JSON.stringify(desired[field])) {
      throw new Error(
        `name: the host has an image policy ${desired.name} with other ${field} already; choose another name, or import it: ` +
          `pulumi import ${type} <resource> ${id}`,
      );
    }
  }
}

async function declare(agent: AgentClient, inputs: ImagePolicyInputs, op: Operation): Promise<Properties> {
  op.status("declaring the image policy");
  const answer = await agent.applyImagePolicy(toPolicy(inputs));
  await op.checkpoint("image-policy-applied");
  warnOfRefused(answer.refusedImages, op);
  return outputs(inputs.host, answer.policy!);
}

/** In a preview: asks the host, when it is known already, which of its images the policy would refuse. */
const tryOut = (context: Context, inputs: Properties, op: Operation): Promise<void> =>
  tryOnHost(context, type, inputs, op, async (agent, known) => {
    warnOfRefused((await agent.applyImagePolicy(toPolicy(known), true)).refusedImages, op);
  });

function warnOfRefused(images: { reference: string; reason: string; message: string }[], op: Operation): void {
  for (const { reference, reason, message } of images) {
    op.log("warning", `image ${reference} is on the host and will not start again (${reason}): ${message}`);
  }
}

function checkPolicy(inputs: Previewed<ImagePolicyInputs>, rules: Rules): void {
  rules.dnsLabel("name", inputs.name);
  const { repositories, keys } = inputs;
  if (Array.isArray(repositories)) {
    rules.range("repositories", repositories.length, 1, maximumRepositories, "repositories");
    repositories.forEach((pattern, index) =>
      rules.grammar(`repositories[${index}]`, pattern, (text) => {
        const problem = namePatternProblem(text);
        return problem && `is not server/repository or server/prefix/*, without scheme, tag or digest: ${problem}`;
      }),
    );
  }
  if (Array.isArray(keys)) {
    rules.range("keys", keys.length, 0, maximumKeys, "keys");
    keys.forEach((key, index) => {
      const reason = typeof key === "string" ? publicKeyProblem(key) : undefined;
      if (reason) rules.fail(`keys[${index}]`, reason);
    });
  }
}

const lists = ["repositories", "keys"] as const;

const canonical = (list: (typeof lists)[number], item: string): string =>
  list === "keys" ? createPublicKey(item).export({ type: "spki", format: "pem" }).toString() : item;

/** Gives equal policies equal inputs, as the host does: the order of a list and text around a key have no meaning. */
function normalize(inputs: Previewed<ImagePolicyInputs>): void {
  for (const name of lists) {
    const list = whenKnown<string[]>(inputs[name]);
    if (list) inputs[name] = [...new Set(list.map((item) => canonical(name, item)))].sort();
  }
}
