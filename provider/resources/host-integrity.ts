import {
  describeDifference,
  expectedPart,
  factsOf,
  integrityDifferences,
  type AgentClient,
  type ExpectedIntegrity,
} from "../backends/index.js";
import { PartialFailure, unknown, type Properties, type Resource } from "../protocol/resource.js";
import { checkInputs, decodeInputs, storedInputs } from "../schema/decode.js";
import type { HostIntegrityInputs } from "../schema/inputs.js";
import { drift, inputDifferences } from "../schema/difference.js";
import { connectionOf, isUnreachable, withHost } from "./on-host.js";
import { hostId, toValue } from "./rules.js";

const type = "palisade:index:HostIntegrity";

/** What a host reports of the facts that an image decides. */
const observe = async (agent: AgentClient): Promise<ExpectedIntegrity> => {
  const { kernelVersion } = await agent.getHost();
  return expectedPart(factsOf(await agent.getIntegrity(), kernelVersion));
};

function outputs(inputs: Properties, expected: ExpectedIntegrity, observed: ExpectedIntegrity): Properties {
  return {
    ...inputs,
    observed: toValue(observed),
    problems: integrityDifferences(expected, observed).map(describeDifference),
  };
}

/** @throws PartialFailure when the host differs from its image. The next `up` looks again. */
function asDeclared(known: HostIntegrityInputs, made: Properties): Properties {
  const problems = made["problems"] as string[];
  if (problems.length === 0) return made;
  const { hostId: id } = known.host;
  throw new PartialFailure(id, made, [
    `host: host ${id} is not as its image says: ${problems.join("; ")}. Something else than this image was started, and ` +
      "nobody here can restart it into the image: look at the machine's boot order, and install it anew",
  ]);
}

/**
 * The comparison of a host that no resource of this provider starts with its image. It changes nothing on the host.
 */
export const hostIntegrity: Resource = {
  type,
  defaultTimeouts: { create: 300, update: 300, delete: 30 },

  async check(_context, { inputs }) {
    return checkInputs(type, inputs);
  },

  diff({ oldInputs, oldOutputs, inputs }) {
    const changes = inputDifferences(oldInputs, inputs, [/^host\.hostId$/]);
    const { problems } = oldOutputs;
    if (Array.isArray(problems) && problems.length > 0) changes.push(drift("problems"));
    return changes;
  },

  async create(context, { inputs, preview, op }) {
    if (preview) return { id: "", outputs: { ...inputs, observed: unknown, problems: unknown } };
    const known = decodeInputs(type, inputs);
    const observed = await withHost(context, known.host, op, observe);
    return { id: known.host.hostId, outputs: asDeclared(known, outputs(inputs, known.expected, observed)) };
  },

  async read(context, { id, inputs, outputs: old, op }) {
    const connection = await connectionOf(context.backends, type, hostId("a HostIntegrity", id), inputs, id);
    try {
      const observed = await withHost(context, connection, op, observe);
      const { expected = observed } = storedInputs(type, inputs);
      const known = inputs ?? { host: toValue(connection), expected: toValue(observed) };
      return { id, inputs: known, outputs: outputs(known, expected, observed) };
    } catch (error) {
      if (!inputs || !old || !isUnreachable(error)) throw error;
      // A machine in its rescue system is installed anew by the same `up`, after which the update looks again.
      return { id, inputs, outputs: { ...old, problems: [`the host does not answer: ${(error as Error).message}`] } };
    }
  },

  async update(context, { oldOutputs, inputs, preview, op }) {
    if (preview) return { ...oldOutputs, ...inputs, observed: unknown, problems: unknown };
    const known = decodeInputs(type, inputs);
    const observed = await withHost(context, known.host, op, observe);
    return asDeclared(known, outputs(inputs, known.expected, observed));
  },

  // Nothing of it is on the host.
  async delete() {},
};
