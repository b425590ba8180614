import { createPublicKey } from "node:crypto";
import { create } from "@bufbuild/protobuf";
import { ImagePolicySchema, type ImagePolicy } from "../../hosts/api/gen/palisade/agent/v1/images_pb.js";
import { namePatternProblem } from "../../shared/image-reference.js";
import type { AgentClient, Operation } from "../backends/index.js";
import { unknown, type Context, type Properties, type Resource, type Value } from "../protocol/resource.js";
import { differences, drift, inputDifferences } from "../schema/difference.js";
import { connectionOf, hostOf, isUnreachable, removeFromHost, tryOnHost, withAgent, withHost } from "./on-host.js";
import { anyUnknown, hostedId, Rules, text } from "./rules.js";
import { isRecord, validate } from "../schema/schema.js";
import { publicKeyTrouble } from "./signers.js";

const type = "palisade:index:ImagePolicy";

/** What the host takes as well: hosts/agent/internal/images/policies.go. */
const maximumRepositories = 256;
const maximumKeys = 64;

const texts = (list: Value | undefined): string[] => (Array.isArray(list) ? (list as string[]) : []);

const toPolicy = (inputs: Properties): ImagePolicy =>
  create(ImagePolicySchema, {
    name: text(inputs["name"])!,
    repositories: texts(inputs["repositories"]),
    keys: texts(inputs["keys"]),
  });

const outputs = (host: Value | undefined, policy: ImagePolicy): Properties => ({
  host: host ?? null,
  name: policy.name,
  repositories: policy.repositories,
  keys: policy.keys,
  generation: Number(policy.generation),
});

export const imagePolicy: Resource = {
  type,
  defaultTimeouts: { create: 120, update: 120, delete: 120 },

  async check(_context, { inputs }) {
    const checked = validate(type, inputs);
    checked.inputs["keys"] ??= [];
    checkPolicy(checked.inputs, new Rules(checked.failures));
    if (checked.failures.length === 0) normalize(checked.inputs);
    return checked;
  },

  origins(given, checked) {
    const origins: Record<string, number[][]> = {};
    for (const name of lists) {
      const [items, now] = [given[name], checked[name]];
      if (!Array.isArray(items) || !Array.isArray(now) || anyUnknown(items)) continue;
      const forms = texts(items).map((item) => canonical(name, item));
      origins[name] = texts(now).map((item) => forms.flatMap((form, index) => (form === item ? [index] : [])));
    }
    return origins;
  },

  diff({ oldInputs, oldOutputs, inputs }) {
    const changes = inputDifferences(oldInputs, inputs, [/^host\.hostId$/, /^name$/]);
    if (anyUnknown(inputs)) return changes;
    // What the host holds, against what was declared.
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
    const id = `${hostOf(inputs).hostId}/${text(inputs["name"])!}`;
    return {
      id,
      outputs: await withAgent(context, inputs, op, async (agent) => {
        await refuseAnother(agent, id, toPolicy(inputs));
        return declare(agent, inputs, op);
      }),
    };
  },

  async read(context, { id, inputs, outputs: old, op }) {
    const { hostId, name } = hostedId("an ImagePolicy", "policy", id);
    const connection = await connectionOf(context.backends, hostId, inputs, id);
    try {
      return await withHost(context, connection, op, async (agent) => {
        const policy = await agent.getImagePolicy(name);
        if (!policy) return undefined;
        const observed = outputs(JSON.parse(JSON.stringify(connection)) as Value, policy);
        const { generation: _observed, ...declared } = observed;
        return { id, inputs: inputs ?? declared, outputs: observed };
      });
    } catch (error) {
      // A machine that is proved to be stopped keeps its policies on its disk.
      if (!inputs || !old || !isUnreachable(error) || !(await context.backends.agents.isStopped(hostId))) throw error;
      return { id, inputs, outputs: old };
    }
  },

  async update(context, { oldOutputs, inputs, preview, op }) {
    if (preview) {
      await tryOut(context, inputs, op);
      return { ...oldOutputs, ...inputs, generation: unknown };
    }
    return withAgent(context, inputs, op, (agent) => declare(agent, inputs, op));
  },

  async delete(context, { inputs, outputs: old, op }) {
    const known = isRecord(inputs["host"]) ? inputs : old;
    op.status("removing the image policy");
    await removeFromHost(context, known, { kind: "image policy", name: text(known["name"])! }, op);
  },
};

/** An equal policy that is there already, e.g. from a killed `up`, is adopted; another one is somebody else's. */
async function refuseAnother(agent: AgentClient, id: string, wanted: ImagePolicy): Promise<void> {
  const present = await agent.getImagePolicy(wanted.name);
  if (!present) return;
  for (const field of ["repositories", "keys"] as const) {
    if (JSON.stringify(present[field]) !== JSON.stringify(wanted[field])) {
      throw new Error(
        `name: the host has an image policy ${wanted.name} with other ${field} already; choose another name, or import it: ` +
          `pulumi import ${type} <resource> ${id}`,
      );
    }
  }
}

async function declare(agent: AgentClient, inputs: Properties, op: Operation): Promise<Properties> {
  op.status("declaring the image policy");
  const answer = await agent.applyImagePolicy(toPolicy(inputs));
  await op.checkpoint("image-policy-applied");
  warnOfRefused(answer.refusedImages, op);
  return outputs(inputs["host"], answer.policy!);
}

/** Asks a host that is known already what it would say to the policy. */
const tryOut = (context: Context, inputs: Properties, op: Operation): Promise<void> =>
  tryOnHost(context, inputs, op, async (agent) => {
    warnOfRefused((await agent.applyImagePolicy(toPolicy(inputs), true)).refusedImages, op);
  });

function warnOfRefused(images: { reference: string; reason: string; message: string }[], op: Operation): void {
  for (const { reference, reason, message } of images) {
    op.log("warning", `image ${reference} is on the host and will not start again (${reason}): ${message}`);
  }
}

function checkPolicy(inputs: Properties, rules: Rules): void {
  rules.dnsLabel("name", inputs["name"]);
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
      const reason = typeof key === "string" ? publicKeyTrouble(key) : undefined;
      if (reason) rules.fail(`keys[${index}]`, reason);
    });
  }
}

const lists = ["repositories", "keys"] as const;

const canonical = (list: (typeof lists)[number], item: string): string =>
  list === "keys" ? createPublicKey(item).export({ type: "spki", format: "pem" }).toString() : item;

/** What is listed has no order and text around a key no meaning: equal policies get equal inputs, as on the host. */
function normalize(inputs: Properties): void {
  for (const name of lists) {
    const list = inputs[name];
    if (!Array.isArray(list) || anyUnknown(list)) continue;
    inputs[name] = [...new Set(texts(list).map((item) => canonical(name, item)))].sort();
  }
}
