import * as v from "valibot";
import { decode, object } from "../../shared/decode.js";
import type { AgentClient, Operation } from "../backends/index.js";
import type { GetNetworkResponse } from "../../hosts/api/gen/palisade/agent/v1/network_pb.js";
import { unknown, type Properties, type Resource, type Value } from "../protocol/resource.js";
import { differences, drift, inputDifferences } from "../schema/difference.js";
import { connectionOf, isUnreachable, removeFromHost, storedHost, tryOnHost, withHost } from "./on-host.js";
import { hostId, items, Rules, text, toValue } from "./rules.js";
import { checkInputs, decodeInputs, type Previewed } from "../schema/decode.js";
import type { CompiledPolicy, NetworkPolicyInputs } from "../schema/inputs.js";
import { anyUnknown, isRecord } from "../schema/schema.js";

const type = "palisade:index:NetworkPolicy";

const unknownOutputs: Properties = { policyHash: unknown, problems: unknown, bypasses: unknown };

const outputs = (host: Value, policy: Value, network: GetNetworkResponse): Properties => ({
  host,
  policy,
  policyHash: network.policyHash,
  problems: network.problems,
  bypasses: network.bypasses,
});

export const networkPolicy: Resource = {
  type,
  defaultTimeouts: { create: 300, update: 300, delete: 120 },

  async check(_context, { inputs }) {
    const checked = checkInputs(type, inputs);
    if (isRecord(checked.inputs.policy)) checkPolicy(checked.inputs.policy, new Rules(checked.failures));
    return checked;
  },

  diff({ oldInputs, oldOutputs, inputs }) {
    const changes = inputDifferences(oldInputs, inputs, [/^host\.hostId$/]);
    if (anyUnknown(inputs)) return changes;
    // Compare what the host holds with what was declared.
    for (const { path } of differences("policy", oldOutputs["policy"], inputs["policy"])) {
      if (!changes.some((change) => change.path === path)) changes.push(drift(path));
    }
    if (changes.some(({ path }) => path.startsWith("policy"))) return changes;
    if (oldOutputs["policyHash"] !== decodeInputs(type, inputs).policy.hash) changes.push(drift("policyHash"));
    const problems = oldOutputs["problems"];
    if (Array.isArray(problems) && problems.length > 0) changes.push(drift("problems"));
    return changes;
  },

  async create(context, { inputs, preview, op }) {
    if (preview) {
      await tryOnHost(context, type, inputs, op, async (agent, known) => {
        await refuseAnother(agent, known);
        await apply(agent, known.policy, op, true);
      });
      return { id: "", outputs: { ...inputs, ...unknownOutputs } };
    }
    const known = decodeInputs(type, inputs);
    return {
      id: known.host.hostId,
      outputs: await withHost(context, known.host, op, async (agent) => {
        await refuseAnother(agent, known);
        return declare(agent, known, op);
      }),
    };
  },

  async read(context, { id, inputs, outputs: old, op }) {
    const connection = await connectionOf(context.backends, type, hostId("a NetworkPolicy", id), inputs, id);
    try {
      return await withHost(context, connection, op, async (agent) => {
        const policy = await agent.getNetworkPolicy();
        if (policy === undefined) return undefined;
        const host = toValue(connection);
        const observed = outputs(host, JSON.parse(policy) as Value, await agent.getNetwork());
        return { id, inputs: inputs ?? { host, policy: observed["policy"]! }, outputs: observed };
      });
    } catch (error) {
      // A machine that is proved to be stopped still has its policy on its disk.
      if (!inputs || !old || !isUnreachable(error) || !(await context.backends.agents.isStopped(id))) throw error;
      return { id, inputs, outputs: old };
    }
  },

  async update(context, { oldOutputs, inputs, preview, op }) {
    if (preview) {
      await tryOnHost(context, type, inputs, op, (agent, known) => apply(agent, known.policy, op, true));
      return { ...oldOutputs, ...inputs, ...unknownOutputs };
    }
    const known = decodeInputs(type, inputs);
    return withHost(context, known.host, op, (agent) => declare(agent, known, op));
  },

  async delete(context, { inputs, outputs: old, op }) {
    op.status("withdrawing the network policy");
    await removeFromHost(context, storedHost(type, inputs, old), { kind: "network policy", name: "" }, op);
  },
};

/** Refuses a host that has another policy, as a host has one. An equal one, e.g. from a killed `up`, is adopted. */
async function refuseAnother(agent: AgentClient, { host, policy }: NetworkPolicyInputs): Promise<void> {
  const present = await agent.getNetworkPolicy();
  if (present === undefined) return;
  const { hash } = decode(object({ hash: v.optional(v.string()) }), present, "host: its network policy");
  if (hash === policy.hash) return;
  const { hostId } = host;
  throw new Error(
    `host: host ${hostId} has another network policy already, ${hash}; a host has one for all its groups: declare everything in ` +
      `that one, or import it: pulumi import ${type} <resource> ${hostId}`,
  );
}

async function apply(agent: AgentClient, policy: CompiledPolicy, op: Operation, dryRun: boolean): Promise<void> {
  const { unnamedEndpoints } = await agent.applyNetworkPolicy(JSON.stringify(policy), policy.hash, dryRun);
  for (const name of unnamedEndpoints) {
    op.log(
      "warning",
      `group ${name} runs on the host and the network policy does not name it: nothing passes to or from it; add it to groups`,
    );
  }
}

async function declare(agent: AgentClient, { host, policy }: NetworkPolicyInputs, op: Operation): Promise<Properties> {
  op.status("applying the network policy");
  await apply(agent, policy, op, false);
  await op.checkpoint("network-policy-applied");
  for (const problem of await agent.repairNetwork()) op.log("info", `repaired: ${problem}`);
  return outputs(host, policy, await agent.getNetwork());
}

/** The rules of bpf/datapath/policy.go that concern one field each. The host itself checks the others, and the hash. */
function checkPolicy(policy: Previewed<CompiledPolicy>, rules: Rules): void {
  rules.range("policy.version", policy.version, 1, 1);
  rules.matches("policy.hash", policy.hash, /^[0-9a-f]{64}$/, "a SHA-256 in hexadecimal");
  rules.unique("policy.endpoints", policy.endpoints, "endpoint", (endpoint) => text(endpoint.name));
  rules.unique("policy.identities", policy.identities, "prefix", (identity) => text(identity.cidr));
  items(policy.endpoints).forEach((endpoint, index) => {
    for (const direction of ["ingress", "egress"] as const) {
      const found = endpoint[direction];
      if (!isRecord(found)) continue;
      items(found.rules).forEach((rule, place) => {
        const at = `policy.endpoints[${index}].${direction}.rules[${place}]`;
        rules.oneOf(`${at}.action`, rule.action, ["allow", "deny"]);
        rules.oneOf(`${at}.protocol`, rule.protocol, ["any", "TCP", "UDP", "SCTP", "ICMP", "ICMPv6"]);
        for (const name of ["precedence", "portStart", "portEnd"] as const) {
          rules.range(`${at}.${name}`, rule[name], 0, 65535);
        }
      });
    }
  });
}
