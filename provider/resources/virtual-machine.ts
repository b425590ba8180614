import {
  describeDifference,
  integrityDifferences,
  type VirtualMachineObserved,
  type VirtualMachineSpec,
} from "../backends/index.js";
import { PartialFailure, type Properties, type PropertyDiff, type Resource, type Value } from "../protocol/resource.js";
import { hostPort } from "../../shared/host-port.js";
import { unknown } from "../protocol/resource.js";
import { drift, inputDifferences } from "../schema/difference.js";
import { items, oneOf, portKey, protocols, Rules, toValue } from "./rules.js";
import { checkInputs, decodeInputs, storedInputs } from "../schema/decode.js";
import type { VirtualMachineInputs } from "../schema/inputs.js";
import { isRecord } from "../schema/schema.js";
import { hypervisorUri } from "./state-disk.js";

const type = "palisade:index:VirtualMachine";

/** Changes that need the machine to be started again. */
const restarting = /^(cpus|memoryMiB|acceleration)$/;

/** The agent's port is published by the machine itself. */
const agentPort = 8443;

const accelerations = ["auto", "kvm", "tcg"] as const;
const powerStates = ["running", "stopped"] as const;
const snapshots = ["none", "template"] as const;

function spec(inputs: VirtualMachineInputs): VirtualMachineSpec {
  const { hypervisor: _where, forceDestroy: _force, publishedPorts = [], snapshot, ...rest } = inputs;
  return {
    ...rest,
    publishedPorts: publishedPorts.map((port, index) => ({
      ...port,
      protocol: oneOf(`publishedPorts[${index}].protocol`, port.protocol, protocols),
    })),
    acceleration: oneOf("acceleration", inputs.acceleration, accelerations),
    powerState: oneOf("powerState", inputs.powerState, powerStates),
    ...(snapshot === undefined ? {} : { snapshot: oneOf("snapshot", snapshot, snapshots) }),
  };
}

function outputs(inputs: Properties, observed: VirtualMachineObserved): Properties {
  return {
    ...inputs,
    cpus: observed.cpus,
    memoryMiB: observed.memoryMiB,
    powerState: observed.powerState,
    publishedPorts: toValue(observed.publishedPorts),
    accelerator: observed.accelerator,
    serialLog: observed.serialLog,
    hostId: observed.connection?.hostId ?? "",
    ...(observed.connection ? { connection: toValue(observed.connection) } : {}),
    ...(observed.bootSeconds === undefined ? {} : { bootSeconds: observed.bootSeconds }),
    ...(observed.integrity ? { integrity: toValue(observed.integrity) } : {}),
    ...(observed.expectedIntegrity ? { expectedIntegrity: toValue(observed.expectedIntegrity) } : {}),
    problems: integrityDifferences(observed.expectedIntegrity, observed.integrity).map(describeDifference),
  };
}

/** @throws PartialFailure when the host runs and differs from its image. The next `up` tries again. */
function asDeclared(id: string, made: Properties): Properties {
  const problems = problemsOf(made);
  if (problems.length === 0) return made;
  throw new PartialFailure(id, made, [
    `imageDigest: the host is not as the image ${String(made["imageDigest"])} says: ${problems.join("; ")}. A start with ` +
      "the image's own firmware variables did not change that, so something else than this image runs there. Build the " +
      "image anew, or replace the machine (`pulumi up --replace` with its URN)",
  ]);
}

/** In what a host, by the outputs of its machine, differs from its image. An earlier version recorded nothing of it. */
function problemsOf(machine: Properties): string[] {
  const { problems } = machine;
  return Array.isArray(problems) ? problems.map(String) : [];
}

/**
 * Outputs in which what changes by itself keeps the value it was first observed with. `palisade status` shows the
 * present one.
 */
function withoutDrift(seen: Properties, old: Properties | undefined): Properties {
  const { integrity } = seen;
  const before = old?.["integrity"];
  if (!isRecord(integrity) || !isRecord(before) || before["sealedLayers"] === undefined) return seen;
  return { ...seen, integrity: { ...integrity, sealedLayers: before["sealedLayers"] } };
}

/** The inputs that a program would have to write for the observed machine. */
function inputsOf(observed: VirtualMachineObserved): Properties {
  const { imageDigest, stateDiskId, cpus, memoryMiB, certificateAuthority, clientIdentity, acceleration } = observed;
  return {
    imageDigest,
    stateDiskId,
    cpus,
    memoryMiB,
    publishedPorts: toValue(observed.publishedPorts),
    certificateAuthority: { ...certificateAuthority },
    clientIdentity: { ...clientIdentity },
    acceleration,
    ...(observed.snapshot === undefined ? {} : { snapshot: observed.snapshot }),
    powerState: "running",
    forceDestroy: false,
  };
}

/** A published port whose host port is left open matches whatever port was chosen for it. */
function portDifferences(oldPorts: Value | undefined, newPorts: Value | undefined): PropertyDiff[] {
  const before = items(oldPorts);
  return inputDifferences(
    { publishedPorts: before },
    {
      publishedPorts: items(newPorts).map((port) => {
        const chosen = before.find((other) => portKey(other) === portKey(port))?.["hostPort"];
        return port["hostPort"] === 0 && chosen !== undefined ? { ...port, hostPort: chosen } : port;
      }),
    },
  );
}

export const virtualMachine: Resource = {
  type,
  defaultTimeouts: { create: 900, update: 900, delete: 300 },

  async check(_context, { inputs }) {
    const checked = checkInputs(type, inputs);
    const known = checked.inputs;
    const rules = new Rules(checked.failures);
    rules.hypervisor(known.hypervisor);
    rules.digest("imageDigest", known.imageDigest);
    rules.range("cpus", known.cpus, 1, 64);
    rules.range("memoryMiB", known.memoryMiB, 1024, 1024 * 1024, "MiB");
    rules.oneOf("acceleration", known.acceleration, accelerations);
    rules.oneOf("powerState", known.powerState, powerStates);
    rules.oneOf("snapshot", known.snapshot, snapshots);
    for (const [index, port] of items(known.publishedPorts).entries()) {
      const at = `publishedPorts[${index}]`;
      rules.port(`${at}.port`, port.port);
      rules.protocol(`${at}.protocol`, port.protocol);
      rules.range(`${at}.hostPort`, port.hostPort, 0, 65535);
      rules.matches(
        `${at}.hostAddress`,
        port.hostAddress,
        /^\d{1,3}(\.\d{1,3}){3}$/,
        "an IPv4 address of this machine",
      );
      if (port.port === agentPort && port.protocol === "TCP") {
        rules.fail(`${at}.port`, `${agentPort} is the agent's port; it is published already (\`connection.endpoint\`)`);
      }
    }
    rules.unique("publishedPorts", known.publishedPorts, "port", portKey);
    rules.unique("publishedPorts", known.publishedPorts, "the host's port", (port) =>
      typeof port.hostPort === "number" && port.hostPort !== 0
        ? `${hostPort(String(port.hostAddress), port.hostPort)}/${String(port.protocol)}`
        : undefined,
    );
    return checked;
  },

  diff({ oldInputs, oldOutputs, inputs }) {
    const changes = inputDifferences(
      oldInputs,
      inputs,
      [/^imageDigest$/, /^stateDiskId$/, /^hypervisor\.uri$/],
      [/^publishedPorts/, /^hypervisor$/],
    );
    changes.push(...portDifferences(oldOutputs["publishedPorts"], inputs["publishedPorts"]));
    if (problemsOf(oldOutputs).length > 0) changes.push(drift("problems"));
    for (const name of ["powerState", "cpus", "memoryMiB"]) {
      const observed = oldOutputs[name];
      if (observed === undefined || changes.some((change) => change.path === name)) continue;
      if (observed !== inputs[name]) changes.push(drift(name));
    }
    return changes;
  },

  async create({ backends }, { inputs, preview, op }) {
    if (preview) {
      return {
        id: "",
        outputs: {
          ...inputs,
          hostId: unknown,
          connection: unknown,
          accelerator: unknown,
          serialLog: unknown,
          bootSeconds: unknown,
          integrity: unknown,
          expectedIntegrity: unknown,
          problems: unknown,
        },
      };
    }
    const known = decodeInputs(type, inputs);
    const observed = await backends.hypervisor(hypervisorUri(known)).createVirtualMachine(op, spec(known));
    return { id: observed.id, outputs: asDeclared(observed.id, outputs(inputs, observed)) };
  },

  async read({ backends }, { id, inputs, outputs: old }) {
    const observed = await backends.hypervisor(hypervisorUri(storedInputs(type, inputs))).readVirtualMachine(id);
    if (!observed) return undefined;
    const known = inputs ?? inputsOf(observed);
    const seen = outputs(known, observed);
    // The duration of the last start is not part of what is observed.
    if (old?.["bootSeconds"] !== undefined) seen["bootSeconds"] = old["bootSeconds"];
    // The connection stays while the host is stopped.
    if (seen["connection"] === undefined && old?.["connection"] !== undefined) {
      seen["connection"] = old["connection"];
      seen["hostId"] = old["hostId"] ?? "";
    }
    return { id, inputs: known, outputs: withoutDrift(seen, old) };
  },

  async update({ backends }, { id, oldInputs, oldOutputs, inputs, preview, op }) {
    const starts = inputDifferences(oldInputs, inputs).filter(({ path }) => restarting.test(path));
    if (preview) {
      if (starts.length > 0 && oldOutputs["powerState"] === "running") {
        op.log("warning", `restarts the host: ${starts.map(({ path }) => path).join(", ")} can only change that way`);
      }
      const problems = problemsOf(oldOutputs);
      if (problems.length > 0) {
        op.log(
          "warning",
          `the host is not as its image says: ${problems.join("; ")}; it is restarted with the image's own firmware ` +
            "variables, and the update fails if that changes nothing",
        );
      }
      const ports = portDifferences(oldOutputs["publishedPorts"], inputs["publishedPorts"]).length > 0;
      return {
        ...oldOutputs,
        ...inputs,
        ...(problems.length > 0 ? { integrity: unknown } : {}),
        problems: [],
        publishedPorts: ports ? (inputs["publishedPorts"] ?? []) : (oldOutputs["publishedPorts"] ?? []),
        // The host stays the same. Only its published ports are not known yet.
        connection: isRecord(oldOutputs["connection"])
          ? { ...oldOutputs["connection"], ...(ports ? { publishedPorts: unknown } : {}) }
          : unknown,
      };
    }
    const known = decodeInputs(type, inputs);
    const desired = spec(known);
    // A host port that was chosen earlier stays.
    const before = items(oldOutputs["publishedPorts"]);
    desired.publishedPorts = desired.publishedPorts.map((port) => {
      const chosen = before.find((other) => portKey(other) === portKey(port))?.["hostPort"];
      return { ...port, hostPort: port.hostPort || (typeof chosen === "number" ? chosen : 0) };
    });
    const observed = await backends.hypervisor(hypervisorUri(known)).updateVirtualMachine(op, id, desired);
    return asDeclared(id, withoutDrift(outputs(inputs, observed), oldOutputs));
  },

  async delete({ backends }, { id, inputs, op }) {
    const stored = storedInputs(type, inputs);
    const force = stored.forceDestroy === true;
    try {
      await backends.hypervisor(hypervisorUri(stored)).deleteVirtualMachine(op, id, force);
    } catch (error) {
      if (force || (error as Error).name !== "UnreachableHostError") throw error;
      throw new Error(
        `${(error as Error).message}\nA host that cannot be reached is not destroyed, as its groups could not be ended in order. ` +
          "Repair it with `pulumi up`, or set `forceDestroy: true` on the machine, run `pulumi up` with `--refresh=false`, and destroy again",
        { cause: error },
      );
    }
  },
};
