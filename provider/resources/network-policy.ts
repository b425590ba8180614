import * as v from "valibot";
import { decode, object } from "../../shared/decode.js";
import type { AgentClient, Operation } from "../backends/index.js";
import type { GetNetworkResponse } from "../../hosts/api/gen/palisade/agent/v1/network_pb.js";
import { unknown, type Properties, type Resource, type Value } from "../protocol/resource.js";
import { differences, drift, inputDifferences } from "../schema/difference.js";
import { connectionOf, hostOf, isUnreachable, removeFromHost, tryOnHost, withAgent, withHost } from "./on-host.js";
import { anyUnknown, hostId, items, Rules, text } from "./rules.js";
import { isRecord, validate } from "../schema/schema.js";

const type = "palisade:index:NetworkPolicy";

const policyOf = (inputs: Properties): Properties => inputs["policy"] as Properties;
const hashOf = (policy: Properties): string => text(policy["hash"])!;

const unknownOutputs: Properties = { policyHash: unknown, problems: unknown, bypasses: unknown };

const outputs = (host: Value | undefined, policy: Value, network: GetNetworkResponse): Properties => ({
  host: host ?? null,
  policy,
  policyHash: network.policyHash,
  problems: network.problems,
  bypasses: network.bypasses,
});

export const networkPolicy: Resource = {
  type,
  defaultTimeouts: { create: 300, update: 300, delete: 120 },

  async check(_context, { inputs }) {
    const checked = validate(type, inputs);
    if (isRecord(checked.inputs["policy"])) checkPolicy(checked.inputs["policy"], new Rules(checked.failures));
    return checked;
  },

  diff({ oldInputs, oldOutputs, inputs }) {
    const changes = inputDifferences(oldInputs, inputs, [/^host\.hostId$/]);
    if (anyUnknown(inputs)) return changes;
    // What the host holds, against what was declared.
    for (const { path } of differences("policy", oldOutputs["policy"], inputs["policy"])) {
      if (!changes.some((change) => change.path === path)) changes.push(drift(path));
    }
    if (changes.some(({ path }) => path.startsWith("policy"))) return changes;
    if (oldOutputs["policyHash"] !== hashOf(policyOf(inputs))) changes.push(drift("policyHash"));
    const problems = oldOutputs["problems"];
    if (Array.isArray(problems) && problems.length > 0) changes.push(drift("problems"));
    return changes;
  },

  async create(context, { inputs, preview, op }) {
    if (preview) {
      await tryOnHost(context, inputs, op, async (agent) => {
        await refuseAnother(agent, inputs);
        await apply(agent, inputs, op, true);
      });
      return { id: "", outputs: { ...inputs, ...unknownOutputs } };
    }
    return {
      id: hostOf(inputs).hostId,
      outputs: await withAgent(context, inputs, op, async (agent) => {
        await refuseAnother(agent, inputs);
        return declare(agent, inputs, op);
      }),
    };
  },

  async read(context, { id, inputs, outputs: old, op }) {
    const connection = await connectionOf(context.backends, hostId("a NetworkPolicy", id), inputs, id);
    try {
      return await withHost(context, connection, op, async (agent) => {
        const policy = await agent.getNetworkPolicy();
        if (policy === undefined) return undefined;
        const host = JSON.parse(JSON.stringify(connection)) as Value;
        const observed = outputs(host, JSON.parse(policy) as Value, await agent.getNetwork());
        return { id, inputs: inputs ?? { host, policy: observed["policy"]! }, outputs: observed };
      });
    } catch (error) {
      // A machine that is proved to be stopped keeps its policy on its disk.
      if (!inputs || !old || !isUnreachable(error) || !(await context.backends.agents.isStopped(id))) throw error;
      return { id, inputs, outputs: old };
    }
  },

  async update(context, { oldOutputs, inputs, preview, op }) {
    if (preview) {
      await tryOnHost(context, inputs, op, (agent) => apply(agent, inputs, op, true));
      return { ...oldOutputs, ...inputs, ...unknownOutputs };
    }
    return withAgent(context, inputs, op, (agent) => declare(agent, inputs, op));
  },

  async delete(context, { inputs, outputs: old, op }) {
    op.status("withdrawing the network policy");
    const known = isRecord(inputs["host"]) ? inputs : old;
    await removeFromHost(context, known, { kind: "network policy", name: "" }, op);
  },
};

/** A host has one policy. An equal one that is there already, e.g. from a killed `up`, is adopted. */
async function refuseAnother(agent: AgentClient, inputs: Properties): Promise<void> {
  const present = await agent.getNetworkPolicy();
  if (present === undefined) return;
  const { hash } = decode(object({ hash: v.optional(v.string()) }), present, "host: its network policy");
  if (hash === hashOf(policyOf(inputs))) return;
  const { hostId } = hostOf(inputs);
  throw new Error(
    `host: host ${hostId} has another network policy already, ${hash}; a host has one for all its groups: declare everything in ` +
      `that one, or import it: pulumi import ${type} <resource> ${hostId}`,
  );
}

async function apply(agent: AgentClient, inputs: Properties, op: Operation, dryRun: boolean): Promise<void> {
  const policy = policyOf(inputs);
  const { unnamedEndpoints } = await agent.applyNetworkPolicy(JSON.stringify(policy), hashOf(policy), dryRun);
  for (const name of unnamedEndpoints) {
    op.log(
      "warning",
      `group ${name} runs on the host and the network policy does not name it: nothing passes to or from it; add it to groups`,
    );
  }
}

async function declare(agent: AgentClient, inputs: Properties, op: Operation): Promise<Properties> {
  op.status("applying the network policy");
  await apply(agent, inputs, op, false);
  await op.checkpoint("network-policy-applied");
  for (const problem of await agent.repairNetwork()) op.log("info", `repaired: ${problem}`);
  return outputs(inputs["host"], policyOf(inputs), await agent.getNetwork());
}

/** What a host refuses too (bpf/datapath/policy.go), as far as it can be told field by field; the hash is the host's to compare. */
function checkPolicy(policy: Properties, rules: Rules): void {
  rules.range("policy.version", policy["version"], 1, 1);
  rules.matches("policy.hash", policy["hash"], /^[0-9a-f]{64}$/, "a SHA-256 in hexadecimal");
  rules.unique("policy.endpoints", policy["endpoints"], "endpoint", (endpoint) => text(endpoint["name"]));
  rules.unique("policy.identities", policy["identities"], "prefix", (identity) => text(identity["cidr"]));
  items(policy["endpoints"]).forEach((endpoint, index) => {
    for (const direction of ["ingress", "egress"]) {
      const found = endpoint[direction];
      if (!isRecord(found)) continue;
      items(found["rules"]).forEach((rule, place) => {
        const at = `policy.endpoints[${index}].${direction}.rules[${place}]`;
        rules.oneOf(`${at}.action`, rule["action"], ["allow", "deny"]);
        rules.oneOf(`${at}.protocol`, rule["protocol"], ["any", "TCP", "UDP", "SCTP", "ICMP", "ICMPv6"]);
        for (const name of ["precedence", "portStart", "portEnd"]) rules.range(`${at}.${name}`, rule[name], 0, 65535);
      });
    }
  });
}
