/**
 * Checks that all backends of container groups share. Each backend says in its `GroupRules` which arguments it accepts
 * and why not the others.
 */
import type * as pulumi from "@pulumi/pulumi";
import { type ArgumentCheck, isGiven, isLate, known, rules } from "../internal/arguments.js";
import { canonicalServer } from "../../shared/image-reference.js";
import { sharedFields } from "./fields.js";
import { imageReference, isImageParts } from "./images.js";
import type * as model from "./model.js";
import { type Backend, type ValueRules, valueRules } from "./rules.js";

/** Fields of one kind of argument. */
export interface Fields {
  allowed: readonly string[];
  /**
   * Fields of azure-native's that this backend cannot apply, and why. Ignoring them would change the meaning of a
   * program.
   */
  refused?: Record<string, string>;
}

/** The fields that a backend accepts. Its column in `valueRules` says which values they may have. */
export interface GroupRules {
  backend: Backend;
  group: Fields;
  container: Fields;
  /** Absent: the backend has no init containers, and `group` refuses them. */
  initContainer?: Fields;
  /** Fields of an image that is not a reference. */
  image: Fields;
  environmentVariable: Fields;
  /** Fields of requests and limits. */
  amounts: Fields;
  credential: Fields;
  ipAddress: Fields;
  /** Absent: the backend has no volumes, and `group` refuses them. */
  volume?: Fields;
  securityContext?: Fields;
}

/** The rule that a backend has for a value. */
export function ruleOf<K extends keyof ValueRules>(backend: GroupRules, name: K): ValueRules[K][Backend] {
  return valueRules[name][backend.backend];
}

/**
 * Checks everything of the shared arguments that is known now.
 *
 * @param name the component's, which is the group's where `containerGroupName` is not given
 */
export function checkGroup(check: ArgumentCheck, name: string, args: model.GroupArgs, backend: GroupRules): void {
  check.keys("", args, backend.group.allowed, backend.group.refused);
  checkNow(check, "containerGroupName", args.containerGroupName, ruleOf(backend, "groupName"));
  if (!isGiven(args.containerGroupName) && rules.dnsLabel(name) === undefined) {
    const reason = ruleOf(backend, "groupName")(name);
    if (reason) check.add("name", name, `${reason}; choose another name, or give containerGroupName`);
  }
  checkNow(check, "osType", args.osType, ruleOf(backend, "osType"));
  checkNow(check, "restartPolicy", args.restartPolicy, ruleOf(backend, "restartPolicy"));
  check.require("containers", args.containers);
  const containers = known(args.containers);
  const countReason =
    containers && ruleOf(backend, "containerCount")(Array.isArray(containers) ? containers.length : 0);
  if (countReason) check.add("containers", undefined, countReason);
  else {
    check.items(`containers`, containers, (container: model.ContainerArgs, at) =>
      checkContainer(check, at, container, backend),
    );
  }
  if (backend.initContainer) {
    check.items("initContainers", args.initContainers, (container: model.InitContainerArgs, at) =>
      checkInitContainer(check, at, container, backend),
    );
  }
  checkDistinct(check, args, backend);
  if (backend.volume) checkVolumes(check, args, backend, backend.volume);
  const servers = new Distinct(check, "is the server of");
  check.items("imageRegistryCredentials", args.imageRegistryCredentials, (credential, at) => {
    if (!check.object(at, credential)) return;
    checkCredential(check, at, credential, backend);
    const server = known(credential.server);
    servers.add(`${at}.server`, typeof server === "string" ? canonicalServer(server) : undefined, at);
  });
  checkIpAddress(check, known(args.ipAddress), countReason ? undefined : containers, backend);
}

/**
 * Applies a rule to a value that is known now. The backend checks later values again when they become known.
 *
 * @param options `secret`: no message may show the value
 */
export function checkNow<T>(
  check: ArgumentCheck,
  path: string,
  input: pulumi.Input<T> | undefined,
  rule: (value: NonNullable<T>) => string | undefined,
  options: { secret?: boolean } = {},
): void {
  const value = known(input);
  const reason = isGiven(value) ? rule(value) : undefined;
  if (!reason) return;
  if (options.secret) check.addSecret(path, reason);
  else check.add(path, value, reason);
}

/** Calls `visit` with each item that is known. */
export function each<T>(list: model.OptionalList<T> | undefined, visit: (item: T, index: number) => unknown): void {
  const items = known(list);
  if (!Array.isArray(items)) return;
  items.forEach((input, index) => {
    const item = known(input);
    if (item !== undefined) visit(item, index);
  });
}

function checkContainer(check: ArgumentCheck, at: string, container: model.ContainerArgs, backend: GroupRules): void {
  if (!check.object(at, container)) return;
  check.keys(at, container, backend.container.allowed, backend.container.refused);
  for (const field of ["name", "image", "resources"] as const) check.require(`${at}.${field}`, container[field]);
  checkProgram(check, at, container, backend);
  check.items(`${at}.ports`, container.ports, (port: model.PortArgs, path) => checkPort(check, path, port, backend));
  checkResources(check, `${at}.resources`, known(container.resources), backend);
  for (const field of ["livenessProbe", "readinessProbe"] as const) {
    if (!backend.container.allowed.includes(field)) continue;
    const probe = known(container[field]);
    if (!check.object(`${at}.${field}`, probe)) continue;
    checkProbe(check, `${at}.${field}`, probe, backend);
    if (field === "livenessProbe") {
      const rule = ruleOf(backend, "livenessSuccessThreshold");
      checkNow(check, `${at}.${field}.successThreshold`, probe.successThreshold, rule);
    }
  }
}

function checkInitContainer(
  check: ArgumentCheck,
  at: string,
  container: model.InitContainerArgs,
  backend: GroupRules,
): void {
  if (!check.object(at, container)) return;
  check.keys(at, container, backend.initContainer!.allowed, backend.initContainer!.refused);
  for (const field of ["name", "image"] as const) check.require(`${at}.${field}`, container[field]);
  checkProgram(check, at, container, backend);
}

/** What containers and init containers have in common. */
function checkProgram(check: ArgumentCheck, at: string, container: model.InitContainerArgs, backend: GroupRules): void {
  checkNow(check, `${at}.name`, container.name, ruleOf(backend, "containerName"));
  checkImage(check, `${at}.image`, container.image, backend);
  check.items(`${at}.command`, container.command, (word: string, path) =>
    checkNow(check, path, word, ruleOf(backend, "commandWord")),
  );
  const variables = new Distinct(check, "is the name of");
  check.items(`${at}.environmentVariables`, container.environmentVariables, (variable, path) => {
    if (!check.object(path, variable)) return;
    checkVariable(check, path, variable, backend);
    variables.add(`${path}.name`, known(variable.name), path);
  });
  if (backend.securityContext) {
    checkSecurityContext(check, `${at}.securityContext`, known(container.securityContext), backend);
  }
}

function checkSecurityContext(
  check: ArgumentCheck,
  at: string,
  context: model.SecurityContextArgs | undefined,
  backend: GroupRules,
): void {
  if (!check.object(at, context)) return;
  check.keys(at, context, backend.securityContext!.allowed, backend.securityContext!.refused);
  for (const field of ["allowPrivilegeEscalation", "privileged"] as const) {
    checkNow(check, `${at}.${field}`, context[field], ruleOf(backend, "privilege"));
  }
  for (const field of ["runAsUser", "runAsGroup"] as const) {
    checkNow(check, `${at}.${field}`, context[field], ruleOf(backend, field));
  }
  const capabilities = known(context.capabilities);
  if (!check.object(`${at}.capabilities`, capabilities)) return;
  check.items(`${at}.capabilities.add`, capabilities.add, (capability: string, path) =>
    checkNow(check, path, capability, ruleOf(backend, "addedCapability")),
  );
}

function checkImage(
  check: ArgumentCheck,
  at: string,
  image: model.ImageArgs | undefined,
  { image: parts, ...backend }: GroupRules,
): void {
  const server = valueRules.imageServer[backend.backend];
  if (!isImageParts(image)) {
    checkNow(check, at, image, (reference) => rules.imageReference(reference) ?? server(reference));
    return;
  }
  check.keys(at, image, parts.allowed, parts.refused);
  check.require(`${at}.repository`, image.repository);
  checkNow(check, `${at}.repository`, image.repository, rules.imageRepository);
  const { digest, channel } = image as Partial<model.PinnedImageArgs & model.ChannelImageArgs>;
  if (parts.allowed.includes("channel") && isGiven(digest) === isGiven(channel)) {
    check.add(at, undefined, "needs exactly one of digest and channel");
  }
  if (!parts.allowed.includes("channel")) check.require(`${at}.digest`, digest);
  checkNow(check, `${at}.digest`, digest, rules.digest);
  if (isGiven(image.repository) && isGiven(digest)) {
    checkNow(check, at, imageReference(image as model.PinnedImageArgs), server);
  }
  checkNow(check, `${at}.channel`, channel, rules.dnsLabel);
}

function checkPort(check: ArgumentCheck, at: string, port: model.PortArgs, backend: GroupRules): void {
  if (!check.object(at, port)) return;
  check.keys(at, port, sharedFields.port);
  check.require(`${at}.port`, port.port);
  checkNow(check, `${at}.port`, port.port, ruleOf(backend, "port"));
  checkNow(check, `${at}.protocol`, port.protocol, rules.oneOf("TCP", "UDP"));
}

function checkVariable(
  check: ArgumentCheck,
  at: string,
  variable: model.EnvironmentVariableArgs,
  backend: GroupRules,
): void {
  check.keys(at, variable, backend.environmentVariable.allowed, backend.environmentVariable.refused);
  check.require(`${at}.name`, variable.name);
  checkNow(check, `${at}.name`, variable.name, ruleOf(backend, "environmentName"));
  checkNow(check, `${at}.value`, variable.value, ruleOf(backend, "environmentValue"), { secret: true });
  checkNow(check, `${at}.secureValue`, variable.secureValue, ruleOf(backend, "environmentValue"), { secret: true });
  exactlyOne(check, at, { value: variable.value, secureValue: variable.secureValue });
}

/** A value that becomes known later may be absent then, and is checked again. */
function exactlyOne(check: ArgumentCheck, at: string, fields: Record<string, unknown>): void {
  const certain = Object.values(fields).filter((value) => isGiven(value) && !isLate(value)).length;
  const possible = Object.values(fields).filter(isGiven).length;
  if (certain > 1 || possible < 1) {
    check.addSecret(at, `needs exactly one of ${Object.keys(fields).join(" and ")}`);
  }
}

function checkResources(
  check: ArgumentCheck,
  at: string,
  resources: model.ResourceRequirementsArgs | undefined,
  backend: GroupRules,
): void {
  if (!check.object(at, resources)) return;
  check.keys(at, resources, sharedFields.resources);
  check.require(`${at}.requests`, resources.requests);
  const requests = known(resources.requests);
  const limits = known(resources.limits);
  for (const [name, amounts] of [
    ["requests", requests],
    ["limits", limits],
  ] as const) {
    if (!check.object<Partial<NonNullable<typeof requests>>>(`${at}.${name}`, amounts as never)) continue;
    check.keys(`${at}.${name}`, amounts as object, backend.amounts.allowed, backend.amounts.refused);
    for (const field of ["cpu", "memoryInGB"] as const) {
      if (name === "requests") check.require(`${at}.${name}.${field}`, amounts?.[field]);
      checkNow(check, `${at}.${name}.${field}`, amounts?.[field], ruleOf(backend, field));
    }
  }
  for (const field of ["cpu", "memoryInGB"] as const) {
    const request = known(requests?.[field]);
    const limit = known(limits?.[field]);
    if (request !== undefined && limit !== undefined && limit < request) {
      check.add(`${at}.limits.${field}`, limit, `must be at least the request, ${request}`);
    }
  }
}

function checkProbe(check: ArgumentCheck, at: string, probe: model.ContainerProbeArgs, backend: GroupRules): void {
  const times = [
    ["initialDelaySeconds", 0],
    ["periodSeconds", 1],
    ["timeoutSeconds", 1],
    ["failureThreshold", 1],
    ["successThreshold", 1],
  ] as const;
  check.keys(at, probe, sharedFields.probe);
  exactlyOne(check, at, { exec: probe.exec, httpGet: probe.httpGet });
  for (const [field, minimum] of times) {
    checkNow(check, `${at}.${field}`, probe[field], rules.integer(minimum, 2 ** 31 - 1));
  }
  const exec = known(probe.exec);
  if (check.object(`${at}.exec`, exec)) {
    check.keys(`${at}.exec`, exec, ["command"]);
    check.require(`${at}.exec.command`, exec.command);
    const command = known(exec.command);
    const reason = Array.isArray(command) ? ruleOf(backend, "probeCommandLength")(command.length) : undefined;
    if (reason) check.add(`${at}.exec.command`, command, reason);
    check.items(`${at}.exec.command`, exec.command, (word: string, path) =>
      checkNow(check, path, word, ruleOf(backend, "commandWord")),
    );
  }
  const httpGet = known(probe.httpGet);
  if (!check.object(`${at}.httpGet`, httpGet)) return;
  check.keys(`${at}.httpGet`, httpGet, ["port", "path", "scheme", "httpHeaders"]);
  check.require(`${at}.httpGet.port`, httpGet.port);
  checkNow(check, `${at}.httpGet.port`, httpGet.port, rules.integer(1, 65535));
  checkNow(check, `${at}.httpGet.path`, httpGet.path, ruleOf(backend, "probePath"));
  checkNow(check, `${at}.httpGet.scheme`, httpGet.scheme, rules.oneOf("http", "https"));
  check.items(`${at}.httpGet.httpHeaders`, httpGet.httpHeaders, (header, path) => {
    if (!check.object(path, header)) return;
    check.require(`${path}.name`, header.name);
    checkNow(check, `${path}.name`, header.name, ruleOf(backend, "probeHeaderName"));
  });
}

/** Refuses the second of two equal texts. */
class Distinct {
  private readonly places = new Map<string, string>();

  /** @param verb what the second is said to be, before the place of the first */
  constructor(
    private readonly check: ArgumentCheck,
    private readonly verb: string,
    private readonly end = "already",
  ) {}

  /** @param text `undefined`: not known yet */
  add(path: string, text: string | undefined, place: string): void {
    if (text === undefined) return;
    const other = this.places.get(text);
    if (other === undefined) this.places.set(text, place);
    else this.check.add(path, text, `${this.verb} ${other} ${this.end}`);
  }
}

/** Names and ports of a group's containers, of which each is there once. */
function checkDistinct(check: ArgumentCheck, args: model.GroupArgs, backend: GroupRules): void {
  const names = new Distinct(check, "is the name of");
  const ports = new Distinct(check, "is taken by", "already; the containers share one network namespace");
  each(args.containers, (container, index) => {
    const at = `containers[${index}]`;
    names.add(`${at}.name`, known(container?.name), at);
    each(container?.ports, (port, position) => {
      ports.add(`${at}.ports[${position}].port`, portKey(port), `${at}.ports[${position}]`);
    });
  });
  if (!backend.initContainer) return;
  each(args.initContainers, (container, index) => {
    names.add(`initContainers[${index}].name`, known(container?.name), `initContainers[${index}]`);
  });
}

function portKey(port: model.PortArgs | undefined): string | undefined {
  const number = known(port?.port);
  if (number === undefined || isLate(port?.protocol)) return undefined;
  return `${number}/${known(port?.protocol) ?? "TCP"}`;
}

/** Kinds of volumes, and that containers mount what is there. */
function checkVolumes(check: ArgumentCheck, args: model.GroupArgs, backend: GroupRules, fields: Fields): void {
  const names = new Set<string>();
  const kinds = fields.allowed.filter((field) => field !== "name");
  let complete = !isLate(args.volumes);
  const volumes = known(args.volumes);
  const countReason = Array.isArray(volumes) ? ruleOf(backend, "volumeCount")(volumes.length) : undefined;
  if (countReason) check.add("volumes", volumes!.length, countReason);
  if (Array.isArray(volumes)) complete &&= volumes.every((volume) => known(known(volume)?.name) !== undefined);
  check.items("volumes", volumes, (volume: model.VolumeArgs, at) => {
    if (!check.object(at, volume)) return;
    check.keys(at, volume, fields.allowed, fields.refused);
    check.require(`${at}.name`, volume.name);
    checkNow(check, `${at}.name`, volume.name, (name) => rules.dnsLabel(name) ?? ruleOf(backend, "volumeName")(name));
    const all = volume as unknown as Record<string, unknown>;
    const given = kinds.map((kind) => all[kind]).filter(isGiven);
    if (given.filter((value) => !isLate(value)).length > 1 || given.length < 1) {
      check.addSecret(at, `needs exactly one of ${kinds.join(", ")}`);
    }
    const files = known(volume.secret);
    if (check.object(`${at}.secret`, files)) {
      const countReason = ruleOf(backend, "secretFileCount")(Object.keys(files).length);
      if (countReason) check.addSecret(`${at}.secret`, countReason);
      for (const [file, content] of Object.entries(files)) {
        const path = `${at}.secret[${JSON.stringify(file)}]`;
        const reason = ruleOf(backend, "secretFileName")(file);
        if (reason) check.addSecret(path, reason);
        checkNow(check, path, content, ruleOf(backend, "secretFileContent"), { secret: true });
      }
    }
    const name = known(volume.name);
    if (name === undefined) return;
    if (names.has(name)) check.add(`${at}.name`, name, "is the name of another volume");
    names.add(name);
  });
  for (const list of ["containers", "initContainers"] as const) {
    each<model.InitContainerArgs>(args[list], (container, index) => {
      const paths = new Distinct(check, "is where", "is mounted already");
      check.items(`${list}[${index}].volumeMounts`, container?.volumeMounts, (mount: model.VolumeMountArgs, at) => {
        if (!check.object(at, mount)) return;
        check.keys(at, mount, sharedFields.volumeMount);
        check.require(`${at}.name`, mount.name);
        check.require(`${at}.mountPath`, mount.mountPath);
        checkNow(check, `${at}.mountPath`, mount.mountPath, ruleOf(backend, "mountPath"));
        checkNow(check, `${at}.readOnly`, mount.readOnly, rules.boolean);
        paths.add(`${at}.mountPath`, known(mount.mountPath), at);
        const name = known(mount.name);
        if (complete && name !== undefined && !names.has(name))
          check.add(`${at}.name`, name, "no volume has this name");
      });
    });
  }
}

function checkCredential(
  check: ArgumentCheck,
  at: string,
  credential: model.ImageRegistryCredentialArgs,
  backend: GroupRules,
): void {
  check.keys(at, credential, backend.credential.allowed, backend.credential.refused);
  check.require(`${at}.server`, credential.server);
  check.field(
    `${at}.server`,
    credential.server,
    (server) => rules.imageServer(server) ?? ruleOf(backend, "imageServer")(server),
  );
  const has = (value: unknown): boolean | undefined => (isLate(value) ? undefined : isGiven(value));
  const { identity } = credential as { identity?: unknown };
  const parts = { username: has(credential.username), password: has(credential.password), identity: has(identity) };
  if (parts.password === true && parts.username === false) check.require(`${at}.username`, undefined);
  if (parts.username === true && parts.password === false) check.require(`${at}.password`, undefined);
  if (known(credential.username) === "" && known(credential.password)) {
    check.add(`${at}.username`, "", "must not be empty beside a password");
  }
  // A private key in its place must not be shown.
  const { ca } = credential as { ca?: pulumi.Input<string> };
  checkNow(check, `${at}.ca`, ca, ruleOf(backend, "certificateAuthority"), { secret: true });
  const reason = ruleOf(backend, "credential")(parts);
  if (reason) check.add(at, undefined, reason);
}

/** Also used for an `ipAddress` that becomes known later. */
export function checkIpAddress(
  check: ArgumentCheck,
  ipAddress: model.IpAddressArgs | undefined,
  containers: pulumi.Input<model.ContainerArgs>[] | undefined,
  backend: GroupRules,
): void {
  if (!check.object("ipAddress", ipAddress)) return;
  check.keys("ipAddress", ipAddress, backend.ipAddress.allowed, backend.ipAddress.refused);
  checkNow(check, "ipAddress.type", ipAddress.type, ruleOf(backend, "ipAddressType"));
  check.require("ipAddress.ports", ipAddress.ports);
  const ports = known(ipAddress.ports);
  const countReason = Array.isArray(ports) ? ruleOf(backend, "ipAddressPortCount")(ports.length) : undefined;
  if (countReason) check.add("ipAddress.ports", ports!.length === 0 ? ports : ports!.length, countReason);
  const listening = listeningPorts(containers);
  const seen = new Set<string>();
  check.items("ipAddress.ports", ports, (port: model.PortArgs, at) => {
    checkPort(check, at, port, backend);
    const key = portKey(port);
    if (key === undefined) return;
    if (seen.has(key)) check.add(`${at}.port`, key, "is listed twice");
    seen.add(key);
    if (listening && !listening.has(key)) {
      check.add(`${at}.port`, key, `no container listens on it; add it to the ports of a container`);
    }
  });
}

/** Every port that a container lists; undefined when that is not known yet. */
function listeningPorts(containers: pulumi.Input<model.ContainerArgs>[] | undefined): Set<string> | undefined {
  const result = new Set<string>();
  for (const input of Array.isArray(containers) ? containers : [undefined]) {
    const container = known(input);
    if (container === undefined) return undefined;
    if (!isGiven(container.ports)) continue;
    const ports = known(container.ports);
    if (!Array.isArray(ports)) return undefined;
    for (const port of ports) {
      const key = portKey(known(port));
      if (key === undefined) return undefined;
      result.add(key);
    }
  }
  return result;
}
