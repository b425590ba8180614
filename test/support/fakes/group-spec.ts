/**
 * How a host normalizes and checks a group's spec: hosts/agent/internal/groups/validate.go and capacity.go, abridged.
 */
import { X509Certificate } from "node:crypto";
import path from "node:path";
import { clone } from "@bufbuild/protobuf";
import {
  GroupSpecSchema,
  Protocol,
  RestartPolicy,
  type Container,
  type GroupSpec,
  type ImageRegistry,
  type Port,
  type Resources,
} from "../../../hosts/api/gen/palisade/agent/v1/agent_pb.js";
import { isDnsLabel } from "../../../shared/dns-label.js";
import { canonicalServer, referenceProblem, serverProblem } from "../../../shared/image-reference.js";
import { registryAuthority } from "./registry.js";

export interface Violation {
  path: string;
  reason: string;
}

const maximumContainers = 60;
/** Bytes. */
const minimumMemory = 6n << 20n;
/** Cores. */
const minimumCpu = 0.01;
/** What a host has for groups: cores, and memory in bytes. */
const capacity = { cpus: 64, memory: 256n << 30n };

const notALabel = "is not a DNS label of 1 to 63 lower-case letters, digits and hyphens";

/** e.g. `TCP port 80`. */
const portKey = ({ port, protocol }: Port): string => `${Protocol[protocol]} port ${port}`;

/** A copy with the defaults filled in, so that equal declarations are equal specs. */
export function normalized(given: GroupSpec): GroupSpec {
  const spec = clone(GroupSpecSchema, given);
  spec.restartPolicy ||= RestartPolicy.ALWAYS;
  for (const port of [...spec.ports, ...spec.containers.flatMap(({ ports }) => ports)]) port.protocol ||= Protocol.TCP;
  for (const { resources } of spec.containers) {
    if (!resources) continue;
    resources.cpuLimit ||= resources.cpuRequest;
    resources.memoryLimitBytes ||= resources.memoryRequestBytes;
  }
  for (const registry of spec.imageRegistries) registry.endpoint = registry.endpoint.replace(/\/$/, "");
  return spec;
}

/** A copy without secret values. */
export function redacted(given: GroupSpec): GroupSpec {
  const spec = clone(GroupSpecSchema, given);
  for (const variable of spec.containers.flatMap(({ environment }) => environment)) variable.secureValue = "";
  for (const registry of spec.imageRegistries) registry.password = "";
  return spec;
}

/** The violations of a normalized spec by itself; paths have JSON names. */
export function violationsOf(spec: GroupSpec): Violation[] {
  const list: Violation[] = [];
  const add = (at: string, reason: string) => void list.push({ path: at, reason });
  if (!isDnsLabel(spec.name)) add("name", `"${spec.name}" ${notALabel}`);
  const count = spec.containers.length;
  if (count === 0 || count > maximumContainers) {
    add("containers", `${count} containers, expected 1 to ${maximumContainers}`);
  }
  unique(
    spec.containers,
    ({ name }) => name,
    (index, name) => add(`containers[${index}].name`, `"${name}" is used by another container of the group`),
  );
  spec.containers.forEach((container, index) => checkContainer(`containers[${index}]`, container, add));
  const listening = spec.containers.flatMap(({ ports }, index) =>
    ports.map((port, position) => ({ at: `containers[${index}].ports[${position}]`, port })),
  );
  const published = spec.ports.map((port, index) => ({ at: `ports[${index}]`, port }));
  for (const { at, port } of [...listening, ...published]) {
    if (port.port < 1 || port.port > 65535) add(`${at}.port`, `${port.port} is not between 1 and 65535`);
  }
  const twice = (ports: typeof listening, reason: string) =>
    unique(
      ports,
      ({ port }) => portKey(port),
      (index, key) => add(`${ports[index]!.at}.port`, `${key} ${reason}`),
    );
  twice(listening, "is used already; the containers of a group share one network namespace");
  twice(published, "is published twice");
  unique(
    spec.imageRegistries,
    ({ server }) => canonicalServer(server),
    (index, server) => add(`imageRegistries[${index}].server`, `"${server}" is listed twice`),
  );
  spec.imageRegistries.forEach((registry, index) => checkRegistry(`imageRegistries[${index}]`, registry, add));
  return list;
}

type Add = (at: string, reason: string) => void;

/** Calls `found` for each item whose key an earlier one has. */
function unique<T>(list: T[], keyOf: (item: T) => string, found: (index: number, key: string) => void): void {
  const seen = new Set<string>();
  list.forEach((item, index) => {
    const key = keyOf(item);
    if (seen.has(key)) found(index, key);
    seen.add(key);
  });
}

function checkContainer(at: string, container: Container, add: Add): void {
  if (!isDnsLabel(container.name)) add(`${at}.name`, `"${container.name}" ${notALabel}`);
  const problem = referenceProblem(container.image);
  if (problem !== undefined) add(`${at}.image`, `"${container.image}" ${problem}`);
  if (container.channel && !isDnsLabel(container.channel)) {
    add(`${at}.channel`, `"${container.channel}" ${notALabel}`);
  }
  container.command.forEach((argument, index) => {
    if (argument.includes("\0")) add(`${at}.command[${index}]`, "contains a NUL character");
  });
  if (container.workingDirectory && !path.isAbsolute(container.workingDirectory)) {
    add(`${at}.workingDirectory`, `"${container.workingDirectory}" is not an absolute path`);
  }
  container.environment.forEach(({ name, value, secure, secureValue }, index) => {
    const where = `${at}.environment[${index}]`;
    if (!/^[^=\0]+$/.test(name)) add(`${where}.name`, `"${name}" is empty or contains = or NUL`);
    // Values are not repeated: one in the wrong field may be a secret.
    if (secure && value) add(`${where}.value`, "must be empty, as the variable is secure: use secureValue");
    if (!secure && secureValue) add(`${where}.secureValue`, "must be empty, as the variable is not secure: set secure");
    if (`${value}${secureValue}`.includes("\0")) add(where, "the value contains a NUL character");
  });
  unique(
    container.environment,
    ({ name }) => name,
    (index, name) => add(`${at}.environment[${index}].name`, `"${name}" is set twice`),
  );
  if (container.resources) checkResources(`${at}.resources`, container.resources, add);
}

function checkResources(at: string, resources: Resources, add: Add): void {
  for (const field of ["cpuRequest", "cpuLimit"] as const) {
    const cores = resources[field];
    if (!Number.isFinite(cores) || cores < 0 || (cores > 0 && cores < minimumCpu)) {
      add(`${at}.${field}`, `${cores} is neither 0 (unset) nor at least ${minimumCpu} cores`);
    }
  }
  for (const field of ["memoryRequestBytes", "memoryLimitBytes"] as const) {
    const bytes = resources[field];
    if (bytes > 0n && bytes < minimumMemory) {
      add(`${at}.${field}`, `${bytes} is neither 0 (unset) nor at least ${minimumMemory} bytes`);
    }
  }
  if (resources.cpuLimit < resources.cpuRequest) add(`${at}.cpuLimit`, "is less than the request");
  if (resources.memoryLimitBytes < resources.memoryRequestBytes) {
    add(`${at}.memoryLimitBytes`, "is less than the request");
  }
}

function checkRegistry(at: string, registry: ImageRegistry, add: Add): void {
  const problem = serverProblem(registry.server);
  if (problem !== undefined) add(`${at}.server`, `"${registry.server}" ${problem}`);
  if (registry.endpoint && serverProblem(/^https:\/\/([^/?@]+)$/.exec(registry.endpoint)?.[1] ?? "") !== undefined) {
    add(`${at}.endpoint`, "not of the form https://host[:port]");
  }
  if (registry.password && !registry.username) add(`${at}.username`, "missing, though a password is given");
  if (registry.ca && registry.ca !== registryAuthority && !isCertificate(registry.ca))
    add(`${at}.ca`, "contains no PEM certificate");
}

function isCertificate(pem: string): boolean {
  try {
    return Boolean(new X509Certificate(pem));
  } catch {
    return false;
  }
}

/** Why a host has no capacity for a valid spec beside its other groups; undefined when it has. */
export function refusalOf(spec: GroupSpec, others: GroupSpec[]): string | undefined {
  const hostsOwn = 8443;
  for (const [index, port] of spec.ports.entries()) {
    const at = `ports[${index}].port: ${portKey(port)}`;
    if (port.protocol === Protocol.TCP && port.port === hostsOwn) return `${at} is the host's own`;
    const owner = others.find(({ ports }) => ports.some((taken) => portKey(taken) === portKey(port)));
    if (owner) return `${at} is published by group "${owner.name}"`;
  }
  for (const [index, { resources }] of spec.containers.entries()) {
    const at = `containers[${index}].resources`;
    if (resources && resources.cpuLimit > capacity.cpus) {
      return `${at}.cpuLimit: ${resources.cpuLimit} cores exceed the host's ${capacity.cpus}`;
    }
    if (resources && resources.memoryLimitBytes > capacity.memory) {
      return `${at}.memoryLimitBytes: ${resources.memoryLimitBytes} bytes exceed the ${capacity.memory} that the host has for groups`;
    }
  }
  return undefined;
}
