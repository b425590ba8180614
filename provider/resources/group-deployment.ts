import * as agentv1 from "../../hosts/api/gen/palisade/agent/v1/agent_pb.js";
import {
  canonicalServer,
  formatReference,
  nameProblem,
  parseImageReference,
  referenceForm,
  referenceProblem,
} from "../../shared/image-reference.js";
import type { AgentClient, Operation } from "../backends/index.js";
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
import { partsOf, secretDigest, toGroupSpec, toProperties } from "./group-spec.js";
import { connectionOf, hostOf, isUnreachable, removeFromHost, tryOnHost, withAgent, withHost } from "./on-host.js";
import { anyUnknown, hostedId, items, portKey, Rules, text } from "./rules.js";
import { isRecord, show, validate } from "../schema/schema.js";
import { publicKeyTrouble } from "./signers.js";

const type = "palisade:index:GroupDeployment";

/** Values that no one gives back; compared by their digest. */
const secretPaths = [
  /^containers\[\d+\]\.environmentVariables\[\d+\]\.secureValue$/,
  /^imageRegistryCredentials\[\d+\]\.password$/,
];

/** Whose key publishes into a channel says nothing of what runs. */
const publicKeyPath = /^containers\[\d+\]\.imageChannel\.publicKey$/;

/** Times a group is declared again because somebody else was faster. */
const attempts = 3;
/** A container has to stay up this long before its group counts as ready, in milliseconds. */
const settleTime = 2000;
/** How long the host may be silent before it is asked, in milliseconds. */
const pollInterval = 1000;
/** Restarts since the declaration after which a container that fails to stay up fails the operation. */
const hopelessRestarts = 2;
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

function outputs(inputs: Properties, group: agentv1.Group): Properties {
  const observed = group.spec ? toProperties(group.spec) : {};
  const status = group.status;
  const images = new Map(group.spec?.containers.map((container) => [container.name, container.image]));
  const published = items((inputs["host"] as Properties)["publishedPorts"]);
  return {
    ...observed,
    host: inputs["host"] ?? null,
    generation: Number(group.generation),
    observedGeneration: Number(status?.observedGeneration ?? 0n),
    state: phases[status?.phase ?? agentv1.GroupPhase.UNSPECIFIED],
    address: status?.address ?? "",
    endpoints: items(observed["ports"]).flatMap((port) =>
      published.filter((candidate) => portKey(candidate) === portKey(port)),
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
 * A restart happens by itself: while a group is as it was declared, the number stays as it was first observed. `palisade status` shows
 * the present one.
 */
function steady(seen: Properties, old: Properties | undefined): Properties {
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

/** True when a container is as its restart policy wants it to be. */
function settled(state: Value | undefined, exitCode: Value | undefined, policy: Value | undefined): boolean {
  if (state === "Running") return true;
  return state === "Terminated" && policy !== "Always" && exitCode === 0;
}

export const groupDeployment: Resource = {
  type,
  // Long enough to pull an image on an emulated, busy host.
  defaultTimeouts: { create: 900, update: 900, delete: 120 },

  async check(_context, { inputs }) {
    const checked = validate(type, inputs);
    checkGroup(checked.inputs, new Rules(checked.failures));
    if (checked.failures.length === 0) dropTags(items(checked.inputs["containers"]));
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

    const wanted = toGroupSpec(inputs);
    if (secretDigest(wanted, hostOf(inputs)) !== oldOutputs["secretDigest"]) {
      const named = [...differences("", oldInputs, inputs)].filter(({ path }) =>
        secretPaths.some((pattern) => pattern.test(path)),
      );
      changes.push(
        ...(named.length
          ? named.map(({ path, change }) => ({ path, kind: change, inputDiff: true }))
          : [drift("secretDigest")]),
      );
    }
    // What the host holds, against what was declared.
    const canonical = toProperties(wanted);
    for (const name of Object.keys(canonical)) {
      for (const { path } of differences(name, oldOutputs[name], canonical[name])) {
        if (!changes.some((change) => change.path === path)) changes.push(drift(path));
      }
    }
    const observed = items(oldOutputs["observedContainers"]);
    for (const [index, container] of items(inputs["containers"]).entries()) {
      const at = observed.findIndex((one) => one["name"] === container["name"]);
      if (at < 0) changes.push(drift(`observedContainers[${index}]`));
      else if (!settled(observed[at]!["state"], observed[at]!["exitCode"], inputs["restartPolicy"])) {
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
    const id = `${hostOf(inputs).hostId}/${text(inputs["name"])!}`;
    return { id, outputs: await deploy(context, id, inputs, op) };
  },

  async read(context, { id, inputs, outputs: old, op }) {
    const { hostId, name } = hostedId("a GroupDeployment", "group", id);
    const connection = await connectionOf(context.backends, hostId, inputs, id);
    try {
      return await withHost(context, connection, op, async (agent) => {
        const group = await agent.getGroup(name);
        if (!group) return undefined;
        const host = JSON.parse(JSON.stringify(connection)) as Value;
        const known = inputs ?? { ...(group.spec ? withBlankSecrets(toProperties(group.spec)) : {}), host };
        return { id, inputs: known, outputs: steady(outputs({ ...known, host }, group), old) };
      });
    } catch (error) {
      // A machine that is proved to be stopped runs nothing: that is an observation, and `up` can repair it.
      if (!inputs || !old || !isUnreachable(error) || !(await context.backends.agents.isStopped(hostId))) throw error;
      return { id, inputs, outputs: { ...old, ...nothingRuns(old) } };
    }
  },

  async update(context, { id, oldOutputs, inputs, preview, op }) {
    if (preview) {
      await tryOut(context, inputs, op);
      return { ...oldOutputs, ...inputs, ...unknownOutputs };
    }
    return deploy(context, id, inputs, op);
  },

  async delete(context, { inputs, outputs: old, op }) {
    const known = isRecord(inputs["host"]) ? inputs : old;
    op.status("removing the group");
    await removeFromHost(context, known, { kind: "group", name: text(known["name"])! }, op);
  },
};

/**
 * An imported group's inputs: no host gives secret values back, so empty ones stand for them until the program's own are
 * recorded. What is compared is their digest.
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

/** What is observed of a group whose host is stopped. */
function nothingRuns(old: Properties): Properties {
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

/** Asks a host that is known already whether it would take the group: ports in use and capacity are seen in preview. */
const tryOut = (context: Context, inputs: Properties, op: Operation): Promise<void> =>
  tryOnHost(context, inputs, op, async (agent) => {
    const digests = await foreseenDigests(context, agent, inputs, op);
    if (digests) await agent.applyGroup(toGroupSpec(inputs, digests), true);
  });

/** undefined when a channel leads nowhere yet: what publishes into it may be in the same program. */
async function foreseenDigests(
  context: Context,
  agent: AgentClient,
  inputs: Properties,
  op: Operation,
): Promise<Map<string, string> | undefined> {
  if (followers(inputs).length === 0) return new Map();
  try {
    return await chosenDigests(context, inputs, await agent.getGroup(text(inputs["name"])!));
  } catch (error) {
    if (!(error instanceof PropertyError)) throw error;
    op.log("warning", `nothing could be checked against the host: ${error.message}`);
    return undefined;
  }
}

/** Declares the group with the images that run in it: one that was rolled since we looked at it is looked at again. */
async function declare(context: Context, agent: AgentClient, inputs: Properties): Promise<agentv1.Group> {
  const name = text(inputs["name"])!;
  for (let attempt = 1; ; attempt++) {
    const present = followers(inputs).length === 0 ? undefined : await agent.getGroup(name);
    const spec = toGroupSpec(inputs, await chosenDigests(context, inputs, present));
    spec.secretDigest = secretDigest(spec, hostOf(inputs));
    try {
      return await agent.applyGroup(spec, false, present?.generation);
    } catch (error) {
      const wasFaster = present !== undefined && (await agent.getGroup(name))?.generation !== present.generation;
      if (!wasFaster || attempt === attempts) throw error;
    }
  }
}

function deploy(context: Context, id: string, inputs: Properties, op: Operation): Promise<Properties> {
  return withAgent(context, inputs, op, async (agent) => {
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
    if (reasons.length > 0) throw new PartialFailure(id, outputs(inputs, group), reasons);
    await op.checkpoint("group-ready");
    return outputs(inputs, group);
  });
}

/**
 * Follows the group until it is ready, or adds to `reasons` why it will not be. Returns what was seen last. The host tells changes at once;
 * it is asked as well, so that a message that gets lost, or silence, ends nothing late.
 */
async function untilReady(
  agent: AgentClient,
  declared: agentv1.Group,
  op: Operation,
  reasons: string[],
): Promise<agentv1.Group> {
  const name = declared.spec!.name;
  // What a container went through before this declaration is not held against it.
  const restartsBefore = new Map(declared.status?.containers.map((one) => [one.name, one.restartCount]));
  const watching = new AbortController();
  const messages = agent.watchGroup(name, watching.signal)[Symbol.asyncIterator]();
  const listen = (): Promise<IteratorResult<agentv1.Group>> => {
    const next = messages.next();
    // Awaited below or not at all: a rejection that nobody waits for must not end the process.
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
      // The host has looked at the image since the group was declared, and will not run it.
      const refused = last.status?.containers.find(({ reason }) => reason === "ImageRefused");
      if (refused) {
        reasons.push(await explain(agent, name, refused));
        return last;
      }
      if ((last.status?.observedGeneration ?? 0n) < declared.generation) continue;
      const hopeless = last.status?.containers.find((container) =>
        isHopeless(container, last.spec!, restartsBefore.get(container.name) ?? 0),
      );
      if (hopeless) {
        reasons.push(await explain(agent, name, hopeless));
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

function isHopeless(container: agentv1.ContainerStatus, spec: agentv1.GroupSpec, restartsBefore: number): boolean {
  // A count below that of before belongs to a container that was made anew.
  const restarts = container.restartCount - (restartsBefore <= container.restartCount ? restartsBefore : 0);
  if (container.reason === "CrashLoopBackOff" && restarts >= hopelessRestarts) return true;
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

/** One container's trouble: state, reason, the last lines of its log, and where the rest is. */
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

function checkGroup(inputs: Properties, rules: Rules): void {
  rules.dnsLabel("name", inputs["name"]);
  rules.oneOf("restartPolicy", inputs["restartPolicy"], ["Always", "OnFailure", "Never"]);
  const containers = inputs["containers"];
  if (Array.isArray(containers) && (containers.length < 1 || containers.length > 60)) {
    rules.fail("containers", `${containers.length} containers; a group has 1 to 60`);
  }
  if (Array.isArray(containers)) {
    containers.forEach((container, index) => {
      if (isRecord(container)) checkContainer(`containers[${index}]`, container, rules);
    });
    rules.unique("containers", containers, "the name", (container) => text(container["name"]));
    checkSharedPorts(items(containers), rules);
  }
  checkPorts("ports", inputs["ports"], rules);
  items(inputs["imageRegistryCredentials"]).forEach((credential, index) => {
    const at = `imageRegistryCredentials[${index}]`;
    rules.server(`${at}.server`, credential["server"]);
    if ((credential["username"] === undefined) !== (credential["password"] === undefined)) {
      rules.fail(at, "username and password go together");
    }
    if (credential["username"] === "" && text(credential["password"])) {
      rules.fail(`${at}.username`, "is empty, though a password is given");
    }
    if (text(credential["ca"]) && !text(credential["ca"])!.includes("-----BEGIN CERTIFICATE-----")) {
      rules.fail(`${at}.ca`, "is not a PEM certificate");
    }
  });
  rules.unique("imageRegistryCredentials", inputs["imageRegistryCredentials"], "the server", (one) => {
    const server = text(one["server"]);
    return server && canonicalServer(server);
  });
}

function checkPorts(path: string, list: Value | undefined, rules: Rules): void {
  items(list).forEach((port, index) => {
    rules.port(`${path}[${index}].port`, port["port"]);
    rules.protocol(`${path}[${index}].protocol`, port["protocol"]);
  });
  rules.unique(path, list, "port", portKey);
}

/** Containers of a group share one network namespace, so two of them cannot listen on one port. */
function checkSharedPorts(containers: Properties[], rules: Rules): void {
  const owners = new Map<string, string>();
  containers.forEach((container, index) => {
    const name = text(container["name"]) ?? String(index);
    items(container["ports"]).forEach((port, position) => {
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

function checkChannel(at: string, follows: Properties, rules: Rules): void {
  rules.grammar(`${at}.repository`, follows["repository"], (name) => {
    const problem = nameProblem(name);
    return problem && `is not <server>/<repository>, without tag and digest: ${problem}`;
  });
  rules.dnsLabel(`${at}.channel`, follows["channel"]);
  const key = text(follows["publicKey"]);
  const trouble = key === undefined ? undefined : publicKeyTrouble(key);
  if (trouble) rules.fail(`${at}.publicKey`, trouble);
}

/** The digest decides what runs: another tag beside the same digest is no change. */
function dropTags(containers: Properties[]): void {
  for (const container of containers) {
    const image = text(container["image"]);
    if (image !== undefined) container["image"] = formatReference(parseImageReference(image));
  }
}

function checkContainer(at: string, container: Properties, rules: Rules): void {
  rules.dnsLabel(`${at}.name`, container["name"]);
  const { image, imageChannel } = container;
  if ((image === undefined) === (imageChannel === undefined)) {
    rules.fail(image === undefined ? `${at}.image` : at, "give exactly one of image and imageChannel");
  }
  if (isRecord(imageChannel)) checkChannel(`${at}.imageChannel`, imageChannel, rules);
  rules.grammar(`${at}.image`, container["image"], (image) => {
    const problem = referenceProblem(image);
    return problem && `is not a reference with a digest, ${referenceForm}: ${problem}`;
  });
  checkPorts(`${at}.ports`, container["ports"], rules);
  if (Array.isArray(container["command"])) {
    container["command"].forEach((word, index) => {
      if (text(word)?.includes("\0")) rules.fail(`${at}.command[${index}]`, "holds a zero byte, where a word ends");
    });
  }
  items(container["environmentVariables"]).forEach((variable, index) => {
    const path = `${at}.environmentVariables[${index}]`;
    rules.matches(`${path}.name`, variable["name"], /^[^=\0]+$/, "a name without '=' and without a zero byte");
    for (const field of ["value", "secureValue"]) {
      if (text(variable[field])?.includes("\0"))
        rules.fail(`${path}.${field}`, "holds a zero byte, where a value ends");
    }
    if ((variable["value"] === undefined) === (variable["secureValue"] === undefined)) {
      rules.fail(path, "give exactly one of value and secureValue");
    }
  });
  rules.unique(`${at}.environmentVariables`, container["environmentVariables"], "the variable", (one) =>
    text(one["name"]),
  );
  const resources = container["resources"];
  if (isRecord(resources)) checkResources(`${at}.resources`, resources, rules);
}

/** Amounts come in hundredths, of which binary fractions miss most by a little. */
function checkStep(property: string, amount: Value | undefined, rules: Rules): void {
  if (typeof amount !== "number") return;
  const hundredths = amount * 100;
  if (Math.abs(hundredths - Math.round(hundredths)) >= 1e-6) rules.fail(property, `${amount} is not in steps of 0.01`);
}

function checkResources(at: string, resources: Properties, rules: Rules): void {
  const requests = isRecord(resources["requests"]) ? resources["requests"] : {};
  const limits = isRecord(resources["limits"]) ? resources["limits"] : {};
  const bounds: [string, number, number, string][] = [
    ["cpu", 0.01, 64, "cores"],
    ["memoryInGB", 0.01, 1024, "GB"],
  ];
  for (const [name, minimum, maximum, unit] of bounds) {
    const request = requests[name];
    const limit = limits[name];
    rules.range(`${at}.requests.${name}`, request, minimum, maximum, unit);
    rules.range(`${at}.limits.${name}`, limit, minimum, maximum, unit);
    checkStep(`${at}.requests.${name}`, request, rules);
    checkStep(`${at}.limits.${name}`, limit, rules);
    if (typeof request === "number" && typeof limit === "number" && limit < request) {
      rules.fail(`${at}.limits.${name}`, `${show(limit)} is less than the request of ${request}`);
    }
  }
}
