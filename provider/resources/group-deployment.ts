import * as agentv1 from "../../hosts/api/gen/palisade/agent/v1/agent_pb.js";
import {
  canonicalServer,
  formatReference,
  nameProblem,
  parseImageReference,
  referenceForm,
  referenceProblem,
} from "../../shared/image-reference.js";
import type { AgentClient, HostConnection, Operation } from "../backends/index.js";
import { PropertyError } from "../backends/errors.js";
import {
  isUnknown,
  PartialFailure,
  unknown,
  type Context,
  type Properties,
  type PropertyDiff,
  type Resource,
  type Value,
} from "../protocol/resource.js";
import { differences, drift, inputDifferences } from "../schema/difference.js";
import { chosenDigests, followers } from "./group-images.js";
import { partsOf, restartPolicies, secretDigest, toGroupSpec, toProperties } from "./group-spec.js";
import { connectionOf, isUnreachable, removeFromHost, storedHost, tryOnHost, withHost } from "./on-host.js";
import { hostedId, items, portKey, Rules, text, toValue, type PreviewedList } from "./rules.js";
import { checkInputs, decodeInputs, type Previewed } from "../schema/decode.js";
import type {
  Container,
  ContainerPort,
  GroupDeploymentInputs,
  ImageChannel,
  ResourceRequirements,
} from "../schema/inputs.js";
import { anyUnknown, isRecord, show } from "../schema/schema.js";
import { publicKeyProblem } from "./signers.js";

const type = "palisade:index:GroupDeployment";

/** Values that a host never returns. They are compared by their digest. */
const secretPaths = [
  /^containers\[\d+\]\.environmentVariables\[\d+\]\.secureValue$/,
  /^imageRegistryCredentials\[\d+\]\.password$/,
];

/** A change of the key that publishes into a channel does not change what runs. */
const publicKeyPath = /^containers\[\d+\]\.imageChannel\.publicKey$/;

/** How often a group is declared when others change it at the same time. */
const attempts = 3;
/** A container has to stay up this long before its group counts as ready, in milliseconds. */
const settleTime = 2000;
/** How long the host may be silent before it is asked, in milliseconds. */
const pollInterval = 1000;
/** Restarts since the declaration after which a container that fails to stay up fails the operation. */
const maximumRestarts = 2;
const logLines = 20;

const phases: Record<agentv1.GroupPhase, string> = {
  [agentv1.GroupPhase.UNSPECIFIED]: "Pending",
  [agentv1.GroupPhase.PENDING]: "Pending",
  [agentv1.GroupPhase.RUNNING]: "Running",
  [agentv1.GroupPhase.SUCCEEDED]: "Succeeded",
  [agentv1.GroupPhase.FAILED]: "Failed",
  [agentv1.GroupPhase.STOPPED]: "Stopped",
  [agentv1.GroupPhase.DELETING]: "Pending",
};
const containerPhases: Record<agentv1.ContainerPhase, string> = {
  [agentv1.ContainerPhase.UNSPECIFIED]: "Waiting",
  [agentv1.ContainerPhase.WAITING]: "Waiting",
  [agentv1.ContainerPhase.RUNNING]: "Running",
  [agentv1.ContainerPhase.TERMINATED]: "Terminated",
};

function outputs(host: HostConnection, group: agentv1.Group): Properties {
  const observed = group.spec ? toProperties(group.spec) : {};
  const status = group.status;
  const images = new Map(group.spec?.containers.map((container) => [container.name, container.image]));
  return {
    ...observed,
    host: toValue(host),
    generation: Number(group.generation),
    observedGeneration: Number(status?.observedGeneration ?? 0n),
    state: phases[status?.phase ?? agentv1.GroupPhase.UNSPECIFIED],
    address: status?.address ?? "",
    endpoints: items(observed["ports"]).flatMap((port) =>
      host.publishedPorts.filter((candidate) => portKey(candidate) === portKey(port)).map(toValue),
    ),
    observedContainers: (status?.containers ?? []).map((container) => {
      const image = images.get(container.name) ?? container.imageDigest;
      return {
        name: container.name,
        state: containerPhases[container.phase],
        ...(container.reason ? { reason: container.reason } : {}),
        restartCount: container.restartCount,
        image,
        imageDigest: partsOf(image).digest,
        ...(container.phase === agentv1.ContainerPhase.TERMINATED ? { exitCode: container.exitCode } : {}),
      };
    }),
    secretDigest: group.spec?.secretDigest ?? "",
  };
}

/**
 * Outputs in which the restart counts stay as first observed while the group is as it was declared, because a restart
 * happens by itself. `palisade status` shows the present counts.
 */
function withoutDrift(seen: Properties, old: Properties | undefined): Properties {
  if (!old || old["generation"] !== seen["generation"]) return seen;
  const before = new Map(items(old["observedContainers"]).map((one) => [one["name"], one["restartCount"]]));
  return {
    ...seen,
    observedContainers: items(seen["observedContainers"]).map((container) => ({
      ...container,
      restartCount: before.get(container["name"]) ?? container["restartCount"] ?? 0,
    })),
  };
}

/** True when a container is in a state that its restart policy aims at. */
function settled(state: Value | undefined, exitCode: Value | undefined, policy: Value | undefined): boolean {
  if (state === "Running") return true;
  return state === "Terminated" && policy !== "Always" && exitCode === 0;
}

export const groupDeployment: Resource = {
  type,
  // Long enough to pull an image on an emulated, busy host.
  defaultTimeouts: { create: 900, update: 900, delete: 120 },

  async check(_context, { inputs }) {
    const checked = checkInputs(type, inputs);
    checkGroup(checked.inputs, new Rules(checked.failures));
    if (checked.failures.length === 0) dropTags(items(checked.inputs.containers));
    return checked;
  },

  diff({ oldInputs, oldOutputs, inputs }) {
    const host = inputs["host"];
    const changes: PropertyDiff[] = [];
    if (isUnknown(host)) changes.push({ path: "host.hostId", kind: "update-replace", inputDiff: true });
    const declared = inputDifferences(
      oldInputs,
      inputs,
      [/^host\.hostId$/, /^name$/],
      [...secretPaths, publicKeyPath, ...(isUnknown(host) ? [/^host$/] : [])],
    );
    changes.push(...declared);
    if (anyUnknown(inputs)) return changes;

    const known = decodeInputs(type, inputs);
    const desired = toGroupSpec(known);
    if (secretDigest(desired, known.host) !== oldOutputs["secretDigest"]) {
      const named = [...differences("", oldInputs, inputs)].filter(({ path }) =>
        secretPaths.some((pattern) => pattern.test(path)),
      );
      changes.push(
        ...(named.length
          ? named.map(({ path, change }) => ({ path, kind: change, inputDiff: true }))
          : [drift("secretDigest")]),
      );
    }
    // Compare what the host holds with what was declared.
    const canonical = toProperties(desired);
    for (const name of Object.keys(canonical)) {
      for (const { path } of differences(name, oldOutputs[name], canonical[name])) {
        if (!changes.some((change) => change.path === path)) changes.push(drift(path));
      }
    }
    const observed = items(oldOutputs["observedContainers"]);
    for (const [index, container] of known.containers.entries()) {
      const at = observed.findIndex((one) => one["name"] === container.name);
      if (at < 0) changes.push(drift(`observedContainers[${index}]`));
      else if (!settled(observed[at]!["state"], observed[at]!["exitCode"], known.restartPolicy)) {
        changes.push(drift(`observedContainers[${at}].state`));
      }
    }
    return changes;
  },

  async create(context, { inputs, preview, op }) {
    if (preview) {
      await tryOut(context, inputs, op);
      return { id: "", outputs: { ...inputs, ...unknownOutputs } };
    }
    const known = decodeInputs(type, inputs);
    const id = `${known.host.hostId}/${known.name}`;
    return { id, outputs: await deploy(context, id, known, op) };
  },

  async read(context, { id, inputs, outputs: old, op }) {
    const { hostId, name } = hostedId("a GroupDeployment", "group", id);
    const connection = await connectionOf(context.backends, type, hostId, inputs, id);
    try {
      return await withHost(context, connection, op, async (agent) => {
        const group = await agent.getGroup(name);
        if (!group) return undefined;
        const declared = group.spec ? withBlankSecrets(toProperties(group.spec)) : {};
        const known = inputs ?? { ...declared, host: toValue(connection) };
        return { id, inputs: known, outputs: withoutDrift(outputs(connection, group), old) };
      });
    } catch (error) {
      // A machine that is proved to be stopped runs nothing: that is an observation, and `up` can repair it.
      if (!inputs || !old || !isUnreachable(error) || !(await context.backends.agents.isStopped(hostId))) throw error;
      return { id, inputs, outputs: { ...old, ...stoppedOutputs(old) } };
    }
  },

  async update(context, { id, oldOutputs, inputs, preview, op }) {
    if (preview) {
      await tryOut(context, inputs, op);
      return { ...oldOutputs, ...inputs, ...unknownOutputs };
    }
    return deploy(context, id, decodeInputs(type, inputs), op);
  },

  async delete(context, { id, inputs, outputs: old, op }) {
    op.status("removing the group");
    const { name } = hostedId("a GroupDeployment", "group", id);
    await removeFromHost(context, storedHost(type, inputs, old), { kind: "group", name }, op);
  },
};

/**
 * An imported group's inputs. No host returns secret values, so empty ones stand for them until those of the program
 * are recorded. Secret values are compared by their digest.
 */
function withBlankSecrets(group: Properties): Properties {
  const variables = (list: Value | undefined) =>
    items(list).map((variable) => (variable["value"] === undefined ? { ...variable, secureValue: "" } : variable));
  return {
    ...group,
    containers: items(group["containers"]).map((container) =>
      container["environmentVariables"] === undefined
        ? container
        : { ...container, environmentVariables: variables(container["environmentVariables"]) },
    ),
    imageRegistryCredentials: items(group["imageRegistryCredentials"]).map((credential) =>
      credential["username"] === undefined ? credential : { ...credential, password: "" },
    ),
  };
}

/** Outputs of a group whose host is stopped. */
function stoppedOutputs(old: Properties): Properties {
  return {
    state: "Stopped",
    observedContainers: items(old["observedContainers"]).map(({ exitCode: _ended, ...container }) => ({
      ...container,
      state: "Waiting",
      reason: "HostStopped",
    })),
  };
}

const unknownOutputs: Properties = {
  generation: unknown,
  observedGeneration: unknown,
  state: unknown,
  address: unknown,
  endpoints: unknown,
  observedContainers: unknown,
  secretDigest: unknown,
};

/**
 * In a preview: asks the host, when it is known already, whether it would accept the group, so that ports in use are
 * seen.
 */
const tryOut = (context: Context, inputs: Properties, op: Operation): Promise<void> =>
  tryOnHost(context, type, inputs, op, async (agent, known) => {
    const digests = await expectedDigests(context, agent, known, op);
    if (digests) await agent.applyGroup(toGroupSpec(known, digests), true);
  });

/** The digests for a preview; undefined when a channel does not exist yet: the same program may publish into it. */
async function expectedDigests(
  context: Context,
  agent: AgentClient,
  inputs: GroupDeploymentInputs,
  op: Operation,
): Promise<Map<string, string> | undefined> {
  if (followers(inputs).length === 0) return new Map();
  try {
    return await chosenDigests(context, inputs, await agent.getGroup(inputs.name));
  } catch (error) {
    if (!(error instanceof PropertyError)) throw error;
    op.log("warning", `nothing could be checked against the host: ${error.message}`);
    return undefined;
  }
}

/** Declares the group with the digests that run in it. When one was rolled in the meantime, they are read again. */
async function declare(context: Context, agent: AgentClient, inputs: GroupDeploymentInputs): Promise<agentv1.Group> {
  const { name, host } = inputs;
  for (let attempt = 1; ; attempt++) {
    const present = followers(inputs).length === 0 ? undefined : await agent.getGroup(name);
    const spec = toGroupSpec(inputs, await chosenDigests(context, inputs, present));
    spec.secretDigest = secretDigest(spec, host);
    try {
      return await agent.applyGroup(spec, false, present?.generation);
    } catch (error) {
      const wasChanged = present !== undefined && (await agent.getGroup(name))?.generation !== present.generation;
      if (!wasChanged || attempt === attempts) throw error;
    }
  }
}

function deploy(context: Context, id: string, inputs: GroupDeploymentInputs, op: Operation): Promise<Properties> {
  return withHost(context, inputs.host, op, async (agent) => {
    op.status("declaring the group");
    const declared = await declare(context, agent, inputs);
    await op.checkpoint("group-applied");
    const reasons: string[] = [];
    let group = declared;
    try {
      group = await untilReady(agent, declared, op, reasons);
    } catch (error) {
      reasons.push((error as Error).message);
    }
    if (reasons.length > 0) throw new PartialFailure(id, outputs(inputs.host, group), reasons);
    await op.checkpoint("group-ready");
    return outputs(inputs.host, group);
  });
}

/**
 * Follows the group until it is ready, or adds to `reasons` why it will not be. Returns the group as it was observed
 * last. The host reports changes at once. It is polled as well, so that a lost message delays nothing.
 */
async function untilReady(
  agent: AgentClient,
  declared: agentv1.Group,
  op: Operation,
  reasons: string[],
): Promise<agentv1.Group> {
  const name = declared.spec!.name;
  // Restarts before this declaration do not count.
  const restartsBefore = new Map(declared.status?.containers.map((one) => [one.name, one.restartCount]));
  const watching = new AbortController();
  const messages = agent.watchGroup(name, watching.signal)[Symbol.asyncIterator]();
  const listen = (): Promise<IteratorResult<agentv1.Group>> => {
    const next = messages.next();
    // It may never be awaited: then its rejection must not end the process.
    next.catch(() => undefined);
    return next;
  };
  let last = declared;
  let ready: { since: number; restarts: number } | undefined;
  try {
    for (let next = listen(); ;) {
      if (op.signal.aborted || Date.now() >= op.deadline) {
        reasons.push(...(await unreadiness(agent, last, op.signal.aborted)));
        return last;
      }
      const heard = await Promise.race([next, pause(pollInterval)]);
      if (heard?.done) throw new Error(`group ${name}: the host has ended the report on it`);
      if (heard) next = listen();
      last = heard?.value ?? (await agent.getGroup(name)) ?? last;
      op.status(progress(last));
      // The host has checked the image since the group was declared, and refuses to run it.
      const refused = last.status?.containers.find(({ reason }) => reason === "ImageRefused");
      if (refused) {
        reasons.push(await explain(agent, name, refused));
        return last;
      }
      if ((last.status?.observedGeneration ?? 0n) < declared.generation) continue;
      const failing = last.status?.containers.find((container) =>
        willNotBeReady(container, last.spec!, restartsBefore.get(container.name) ?? 0),
      );
      if (failing) {
        reasons.push(await explain(agent, name, failing));
        return last;
      }
      const restarts = last.status?.containers.reduce((total, container) => total + container.restartCount, 0) ?? 0;
      if (!isReady(last)) ready = undefined;
      else if (ready?.restarts !== restarts) ready = { since: Date.now(), restarts };
      else if (Date.now() - ready.since >= settleTime) return last;
    }
  } finally {
    watching.abort();
  }
}

const pause = (milliseconds: number): Promise<undefined> =>
  new Promise((resolve) => setTimeout(() => resolve(undefined), milliseconds));

async function unreadiness(agent: AgentClient, group: agentv1.Group, cancelled: boolean): Promise<string[]> {
  const waiting = (group.status?.containers ?? []).filter(({ phase }) => phase !== agentv1.ContainerPhase.RUNNING);
  return [
    cancelled ? "the operation was cancelled" : "the group was not ready in time",
    ...(await Promise.all(waiting.map((container) => explain(agent, group.spec!.name, container)))),
  ];
}

function isReady(group: agentv1.Group): boolean {
  const containers = group.status?.containers ?? [];
  const policy = group.spec?.restartPolicy === agentv1.RestartPolicy.ALWAYS ? "Always" : "OnFailure";
  return (
    containers.length === group.spec?.containers.length &&
    containers.every((container) => settled(containerPhases[container.phase], container.exitCode, policy))
  );
}

function willNotBeReady(container: agentv1.ContainerStatus, spec: agentv1.GroupSpec, restartsBefore: number): boolean {
  // A lower count than before belongs to a new container.
  const restarts = container.restartCount - (restartsBefore <= container.restartCount ? restartsBefore : 0);
  if (container.reason === "CrashLoopBackOff" && restarts >= maximumRestarts) return true;
  return (
    spec.restartPolicy === agentv1.RestartPolicy.NEVER &&
    container.phase === agentv1.ContainerPhase.TERMINATED &&
    container.exitCode !== 0
  );
}

function progress(group: agentv1.Group): string {
  return (group.status?.containers ?? [])
    .map(({ name, phase, reason }) => `${name}: ${containerPhases[phase]}${reason ? ` (${reason})` : ""}`)
    .join(", ");
}

/** Why a container is not ready: state, reason, the last lines of its log, and how to see all of the log. */
async function explain(agent: AgentClient, group: string, container: agentv1.ContainerStatus): Promise<string> {
  const state =
    container.phase === agentv1.ContainerPhase.TERMINATED || container.exitCode !== 0
      ? ` with exit code ${container.exitCode}`
      : "";
  const head =
    `container ${container.name}: ${container.reason || containerPhases[container.phase]}${state}` +
    (container.message ? `: ${container.message}` : "");
  let log: string;
  try {
    log = (await agent.getLogs(group, container.name, logLines)).trimEnd();
  } catch (error) {
    log = `(its log cannot be read: ${(error as Error).message})`;
  }
  const lines = log ? `\nlast lines of its log:\n${log.replaceAll(/^/gm, "  ")}` : "\nit has written no log";
  return `${head}${lines}\nall of it: palisade logs ${group} ${container.name}`;
}

function checkGroup(inputs: Previewed<GroupDeploymentInputs>, rules: Rules): void {
  rules.dnsLabel("name", inputs.name);
  rules.oneOf("restartPolicy", inputs.restartPolicy, restartPolicies);
  const containers = inputs.containers;
  if (Array.isArray(containers) && (containers.length < 1 || containers.length > 60)) {
    rules.fail("containers", `${containers.length} containers; a group has 1 to 60`);
  }
  if (Array.isArray(containers)) {
    containers.forEach((container, index) => {
      if (isRecord(container)) checkContainer(`containers[${index}]`, container, rules);
    });
    rules.unique("containers", containers, "the name", (container) => text(container.name));
    checkSharedPorts(items(containers), rules);
  }
  checkPorts("ports", inputs.ports, rules);
  items(inputs.imageRegistryCredentials).forEach((credential, index) => {
    const at = `imageRegistryCredentials[${index}]`;
    rules.server(`${at}.server`, credential.server);
    if ((credential.username === undefined) !== (credential.password === undefined)) {
      rules.fail(at, "username and password go together");
    }
    if (credential.username === "" && text(credential.password)) {
      rules.fail(`${at}.username`, "is empty, though a password is given");
    }
    if (text(credential.ca) && !text(credential.ca)!.includes("-----BEGIN CERTIFICATE-----")) {
      rules.fail(`${at}.ca`, "is not a PEM certificate");
    }
  });
  rules.unique("imageRegistryCredentials", inputs.imageRegistryCredentials, "the server", (one) => {
    const server = text(one.server);
    return server && canonicalServer(server);
  });
}

function checkPorts(path: string, list: PreviewedList<Previewed<ContainerPort>>, rules: Rules): void {
  items(list).forEach((port, index) => {
    rules.port(`${path}[${index}].port`, port.port);
    rules.protocol(`${path}[${index}].protocol`, port.protocol);
  });
  rules.unique(path, list, "port", portKey);
}

/** Containers of a group share one network namespace, so two of them cannot listen on one port. */
function checkSharedPorts(containers: Previewed<Container>[], rules: Rules): void {
  const owners = new Map<string, string>();
  containers.forEach((container, index) => {
    const name = text(container.name) ?? String(index);
    items(container.ports).forEach((port, position) => {
      const key = portKey(port);
      if (key === undefined) return;
      const owner = owners.get(key);
      if (owner !== undefined && owner !== name) {
        rules.fail(
          `containers[${index}].ports[${position}].port`,
          `${key} is used by container \`${owner}\` of the same group already; they share one network namespace`,
        );
      }
      owners.set(key, name);
    });
  });
}

function checkChannel(at: string, follows: Previewed<ImageChannel>, rules: Rules): void {
  rules.grammar(`${at}.repository`, follows.repository, (name) => {
    const problem = nameProblem(name);
    return problem && `is not <server>/<repository>, without tag and digest: ${problem}`;
  });
  rules.dnsLabel(`${at}.channel`, follows.channel);
  const key = text(follows.publicKey);
  const problem = key === undefined ? undefined : publicKeyProblem(key);
  if (problem) rules.fail(`${at}.publicKey`, problem);
}

/** The digest decides what runs, so another tag beside the same digest is no change. */
function dropTags(containers: Previewed<Container>[]): void {
  for (const container of containers) {
    const image = text(container.image);
    if (image !== undefined) container.image = formatReference(parseImageReference(image));
  }
}

function checkContainer(at: string, container: Previewed<Container>, rules: Rules): void {
  rules.dnsLabel(`${at}.name`, container.name);
  const { image, imageChannel } = container;
  if ((image === undefined) === (imageChannel === undefined)) {
    rules.fail(image === undefined ? `${at}.image` : at, "give exactly one of image and imageChannel");
  }
  if (isRecord(imageChannel)) checkChannel(`${at}.imageChannel`, imageChannel, rules);
  rules.grammar(`${at}.image`, container.image, (image) => {
    const problem = referenceProblem(image);
    return problem && `is not a reference with a digest, ${referenceForm}: ${problem}`;
  });
  checkPorts(`${at}.ports`, container.ports, rules);
  if (Array.isArray(container.command)) {
    container.command.forEach((word, index) => {
      if (text(word)?.includes("\0")) rules.fail(`${at}.command[${index}]`, "holds a zero byte, where a word ends");
    });
  }
  items(container.environmentVariables).forEach((variable, index) => {
    const path = `${at}.environmentVariables[${index}]`;
    rules.matches(`${path}.name`, variable.name, /^[^=\0]+$/, "a name without '=' and without a zero byte");
    for (const field of ["value", "secureValue"] as const) {
      if (text(variable[field])?.includes("\0"))
        rules.fail(`${path}.${field}`, "holds a zero byte, where a value ends");
    }
    if ((variable.value === undefined) === (variable.secureValue === undefined)) {
      rules.fail(path, "give exactly one of value and secureValue");
    }
  });
  rules.unique(`${at}.environmentVariables`, container.environmentVariables, "the variable", (one) => text(one.name));
  const resources = container.resources;
  if (isRecord(resources)) checkResources(`${at}.resources`, resources, rules);
}

/** Amounts come in hundredths, of which binary fractions miss most by a little. */
function checkStep(property: string, amount: Value | undefined, rules: Rules): void {
  if (typeof amount !== "number") return;
  const hundredths = amount * 100;
  if (Math.abs(hundredths - Math.round(hundredths)) >= 1e-6) rules.fail(property, `${amount} is not in steps of 0.01`);
}

function checkResources(at: string, resources: Previewed<ResourceRequirements>, rules: Rules): void {
  const { requests, limits } = resources;
  const bounds = [
    ["cpu", 0.01, 64, "cores"],
    ["memoryInGB", 0.01, 1024, "GB"],
  ] as const;
  for (const [name, minimum, maximum, unit] of bounds) {
    const request = isRecord(requests) ? requests[name] : undefined;
    const limit = isRecord(limits) ? limits[name] : undefined;
    rules.range(`${at}.requests.${name}`, request, minimum, maximum, unit);
    rules.range(`${at}.limits.${name}`, limit, minimum, maximum, unit);
    checkStep(`${at}.requests.${name}`, request, rules);
    checkStep(`${at}.limits.${name}`, limit, rules);
    if (typeof request === "number" && typeof limit === "number" && limit < request) {
      rules.fail(`${at}.limits.${name}`, `${show(limit)} is less than the request of ${request}`);
    }
  }
}
