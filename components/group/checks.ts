/** Checks that all backends of container groups share; each says by `GroupRules` what it takes of the arguments and why not the rest. */
import * as pulumi from "@pulumi/pulumi";
import { type ArgumentCheck, known, type Rule, rules } from "../internal/arguments.js";
import { isImageParts } from "./images.js";
import type * as model from "./model.js";

/** Fields of one kind of argument. */
export interface Fields {
  allowed: readonly string[];
  /** Fields of azure-native's that this backend cannot honour, and why; ignoring them would change what a program means. */
  refused?: Record<string, string>;
}

/** What a backend takes. */
export interface GroupRules {
  group: Fields;
  container: Fields;
  /** Absent: the backend runs no init containers, and `group` refuses them. */
  initContainer?: Fields;
  /** Fields of an image that is not a reference. */
  image: Fields;
  environmentVariable: Fields;
  environmentName: Rule<string>;
  /** Fields of requests and limits. */
  amounts: Fields;
  credential: Fields;
  ipAddress: Fields;
  ipAddressType: Rule<string>;
  /** Absent: the backend has no volumes, and `group` refuses them. */
  volume?: Fields;
  securityContext?: Fields;
  /** Said of a list of containers that is empty or too long. */
  containerCount: string;
}

/** Containers of a group at most, here and in Azure Container Instances. */
export const maximumContainers = 60;

/** Checks everything of the shared arguments that is known now. */
export function checkGroup(check: ArgumentCheck, args: model.GroupArgs, backend: GroupRules): void {
  check.keys("", args, backend.group.allowed, backend.group.refused);
  check.require("containers", args.containers);
  const containers = known(args.containers);
  if (containers !== undefined) {
    if (!Array.isArray(containers) || containers.length < 1 || containers.length > maximumContainers) {
      check.add("containers", undefined, backend.containerCount);
    } else {
      containers.forEach((container, index) =>
        checkContainer(check, `containers[${index}]`, known(container), backend),
      );
      checkUnique(check, containers, backend.initContainer ? (known(args.initContainers) ?? []) : []);
    }
  }
  if (backend.initContainer) {
    each(args.initContainers, (container, index) =>
      checkInitContainer(check, `initContainers[${index}]`, container, backend),
    );
  }
  if (backend.volume) checkVolumes(check, args, backend.volume);
  each(args.imageRegistryCredentials, (credential, index) =>
    checkCredential(check, `imageRegistryCredentials[${index}]`, credential, backend.credential),
  );
  checkIpAddress(check, known(args.ipAddress), containers, backend);
}

/** Calls `visit` with each item that is known. */
export function each<T>(list: model.OptionalList<T> | undefined, visit: (item: T, index: number) => unknown): void {
  known(list)?.forEach((input, index) => {
    const item = known(input);
    if (item !== undefined) visit(item, index);
  });
}

function checkContainer(
  check: ArgumentCheck,
  at: string,
  container: model.ContainerArgs | undefined,
  backend: GroupRules,
): void {
  if (container === undefined) return;
  check.keys(at, container, backend.container.allowed, backend.container.refused);
  for (const field of ["name", "image", "resources"] as const) check.require(`${at}.${field}`, container[field]);
  checkProgram(check, at, container, backend);
  known(container.ports)?.forEach((port, index) => checkPort(check, `${at}.ports[${index}]`, known(port)));
  checkResources(check, `${at}.resources`, known(container.resources), backend.amounts);
  for (const field of ["livenessProbe", "readinessProbe"] as const) {
    if (backend.container.allowed.includes(field)) checkProbe(check, `${at}.${field}`, known(container[field]));
  }
}

function checkInitContainer(
  check: ArgumentCheck,
  at: string,
  container: model.InitContainerArgs,
  backend: GroupRules,
): void {
  check.keys(at, container, backend.initContainer!.allowed, backend.initContainer!.refused);
  for (const field of ["name", "image"] as const) check.require(`${at}.${field}`, container[field]);
  checkProgram(check, at, container, backend);
}

/** What containers and init containers have in common. */
function checkProgram(check: ArgumentCheck, at: string, container: model.InitContainerArgs, backend: GroupRules): void {
  check.field(`${at}.name`, container.name, rules.dnsLabel);
  checkImage(check, `${at}.image`, container.image, backend.image);
  each(container.environmentVariables, (variable, index) =>
    checkVariable(check, `${at}.environmentVariables[${index}]`, variable, backend),
  );
  const context = known(container.securityContext);
  if (context && backend.securityContext) {
    check.keys(`${at}.securityContext`, context, backend.securityContext.allowed, backend.securityContext.refused);
  }
}

function checkImage(check: ArgumentCheck, at: string, image: model.ImageArgs | undefined, fields: Fields): void {
  if (!isImageParts(image)) {
    check.field(at, image, rules.imageReference);
    return;
  }
  check.keys(at, image, fields.allowed, fields.refused);
  check.require(`${at}.repository`, image.repository);
  check.field(`${at}.repository`, image.repository, rules.imageRepository);
  const { digest, channel } = image as Partial<model.PinnedImageArgs & model.ChannelImageArgs>;
  if (fields.allowed.includes("channel") && (digest === undefined) === (channel === undefined)) {
    check.add(at, undefined, "needs exactly one of digest and channel");
  }
  if (!fields.allowed.includes("channel")) check.require(`${at}.digest`, digest);
  check.field(`${at}.digest`, digest, rules.digest);
  check.field(`${at}.channel`, channel as pulumi.Input<string> | undefined, rules.dnsLabel);
}

function checkPort(check: ArgumentCheck, at: string, port: model.PortArgs | undefined): void {
  if (port === undefined) return;
  check.keys(at, port, ["port", "protocol"]);
  check.require(`${at}.port`, port.port);
  check.field(`${at}.port`, port.port, rules.integer(1, 65535));
  check.field(`${at}.protocol`, port.protocol as pulumi.Input<string> | undefined, rules.oneOf("TCP", "UDP"));
}

function checkVariable(
  check: ArgumentCheck,
  at: string,
  variable: model.EnvironmentVariableArgs,
  backend: GroupRules,
): void {
  check.keys(at, variable, backend.environmentVariable.allowed, backend.environmentVariable.refused);
  check.require(`${at}.name`, variable.name);
  check.field(`${at}.name`, variable.name, backend.environmentName);
  const given = [variable.value, variable.secureValue].filter((value) => value !== undefined && value !== null);
  if (given.length !== 1) check.addSecret(at, "needs exactly one of value and secureValue");
}

function checkResources(
  check: ArgumentCheck,
  at: string,
  resources: model.ResourceRequirementsArgs | undefined,
  fields: Fields,
): void {
  if (resources === undefined) return;
  check.keys(at, resources, ["requests", "limits"]);
  check.require(`${at}.requests`, resources.requests);
  const requests = known(resources.requests);
  const limits = known(resources.limits);
  for (const [name, amounts] of [
    ["requests", requests],
    ["limits", limits],
  ] as const) {
    if (!amounts) continue;
    check.keys(`${at}.${name}`, amounts, fields.allowed, fields.refused);
    for (const field of ["cpu", "memoryInGB"] as const) {
      if (name === "requests") check.require(`${at}.${name}.${field}`, amounts[field]);
      check.field(`${at}.${name}.${field}`, amounts[field] as pulumi.Input<number> | undefined, amount);
    }
  }
  for (const field of ["cpu", "memoryInGB"] as const) {
    const request = known(requests?.[field]);
    const limit = known(limits?.[field] as pulumi.Input<number> | undefined);
    if (request !== undefined && limit !== undefined && limit < request) {
      check.add(`${at}.limits.${field}`, limit, `must be at least the request, ${request}`);
    }
  }
}

/** CPU cores and GB come in steps of 0.01. */
function amount(value: number): string | undefined {
  const hundredths = value * 100;
  return typeof value === "number" && value >= 0.01 && Math.abs(hundredths - Math.round(hundredths)) < 1e-6
    ? undefined
    : "must be a number of at least 0.01, in steps of 0.01";
}

function checkProbe(check: ArgumentCheck, at: string, probe: model.ContainerProbeArgs | undefined): void {
  if (probe === undefined) return;
  const times = [
    ["initialDelaySeconds", 0],
    ["periodSeconds", 1],
    ["timeoutSeconds", 1],
    ["failureThreshold", 1],
    ["successThreshold", 1],
  ] as const;
  check.keys(at, probe, ["exec", "httpGet", ...times.map(([field]) => field)]);
  if ((probe.exec === undefined) === (probe.httpGet === undefined)) {
    check.add(at, undefined, "needs exactly one of exec and httpGet");
  }
  for (const [field, minimum] of times) {
    check.field(
      `${at}.${field}`,
      probe[field] as pulumi.Input<number> | undefined,
      rules.integer(minimum, 2 ** 31 - 1),
    );
  }
  const httpGet = known(probe.httpGet);
  if (httpGet === undefined) return;
  check.keys(`${at}.httpGet`, httpGet, ["port", "path", "scheme", "httpHeaders"]);
  check.require(`${at}.httpGet.port`, httpGet.port);
  check.field(`${at}.httpGet.port`, httpGet.port, rules.integer(1, 65535));
  check.field(`${at}.httpGet.scheme`, httpGet.scheme as pulumi.Input<string> | undefined, rules.oneOf("http", "https"));
}

function checkUnique(
  check: ArgumentCheck,
  containers: pulumi.Input<model.ContainerArgs>[],
  initContainers: pulumi.Input<model.InitContainerArgs>[],
): void {
  const names = new Map<string, string>();
  const ports = new Map<string, string>();
  const checkName = (list: string, index: number, name: string | undefined) => {
    if (name === undefined) return;
    const taken = names.get(name);
    if (taken) check.add(`${list}[${index}].name`, name, `is the name of ${taken} already`);
    else names.set(name, `${list}[${index}]`);
  };
  containers.forEach((input, index) => {
    const container = known(input);
    checkName("containers", index, known(container?.name));
    known(container?.ports)?.forEach((inner, position) => {
      const key = portKey(known(inner));
      const at = `containers[${index}].ports[${position}]`;
      if (key === undefined) return;
      const taken = ports.get(key);
      if (taken) check.add(`${at}.port`, key, `is taken by ${taken}; the containers share one network namespace`);
      else ports.set(key, at);
    });
  });
  initContainers.forEach((input, index) => checkName("initContainers", index, known(known(input)?.name)));
}

function portKey(port: model.PortArgs | undefined): string | undefined {
  const number = known(port?.port);
  if (number === undefined || pulumi.Output.isInstance(port?.protocol)) return undefined;
  return `${number}/${known(port?.protocol) ?? "TCP"}`;
}

/** Kinds of volumes, and that containers mount what is there. */
function checkVolumes(check: ArgumentCheck, args: model.GroupArgs, fields: Fields): void {
  const names = new Set<string>();
  const kinds = fields.allowed.filter((field) => field !== "name");
  let complete = args.volumes === undefined || known(args.volumes) !== undefined;
  known(args.volumes)?.forEach((input, index) => {
    const at = `volumes[${index}]`;
    const volume = known(input);
    const name = known(volume?.name);
    if (name === undefined) complete = false;
    if (volume === undefined) return;
    check.keys(at, volume, fields.allowed, fields.refused);
    check.require(`${at}.name`, volume.name);
    check.field(`${at}.name`, volume.name, rules.dnsLabel);
    const given = Object.entries(volume).filter(([field, value]) => field !== "name" && value !== undefined);
    if (given.length !== 1) check.addSecret(at, `needs exactly one of ${kinds.join(", ")}`);
    if (name === undefined) return;
    if (names.has(name)) check.add(`${at}.name`, name, "is the name of another volume");
    names.add(name);
  });
  for (const list of ["containers", "initContainers"] as const) {
    each<model.InitContainerArgs>(args[list], (container, index) =>
      each(container.volumeMounts, (mount, position) => {
        const at = `${list}[${index}].volumeMounts[${position}]`;
        check.keys(at, mount, ["mountPath", "name", "readOnly"]);
        check.require(`${at}.name`, mount.name);
        check.require(`${at}.mountPath`, mount.mountPath);
        check.field(`${at}.mountPath`, mount.mountPath, (path) =>
          /^\/[^:]+$/.test(path) ? undefined : "must be an absolute path below /, without ':'",
        );
        const name = known(mount.name);
        if (complete && name !== undefined && !names.has(name))
          check.add(`${at}.name`, name, "no volume has this name");
      }),
    );
  }
}

function checkCredential(
  check: ArgumentCheck,
  at: string,
  credential: model.ImageRegistryCredentialArgs,
  fields: Fields,
): void {
  check.keys(at, credential, fields.allowed, fields.refused);
  check.require(`${at}.server`, credential.server);
  check.field(`${at}.server`, credential.server, rules.imageServer);
  if (credential.password !== undefined && credential.username === undefined) {
    check.require(`${at}.username`, undefined);
  }
}

/** Also used for an `ipAddress` that becomes known later. */
export function checkIpAddress(
  check: ArgumentCheck,
  ipAddress: model.IpAddressArgs | undefined,
  containers: pulumi.Input<model.ContainerArgs>[] | undefined,
  backend: Pick<GroupRules, "ipAddress" | "ipAddressType">,
): void {
  if (ipAddress === undefined) return;
  check.keys("ipAddress", ipAddress, backend.ipAddress.allowed, backend.ipAddress.refused);
  check.field("ipAddress.type", ipAddress.type, backend.ipAddressType);
  check.require("ipAddress.ports", ipAddress.ports);
  const ports = known(ipAddress.ports);
  const listening = listeningPorts(containers);
  const seen = new Set<string>();
  ports?.forEach((input, index) => {
    const at = `ipAddress.ports[${index}]`;
    const port = known(input);
    checkPort(check, at, port);
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
  for (const input of containers ?? [undefined]) {
    const container = known(input);
    if (container === undefined) return undefined;
    if (container.ports === undefined) continue;
    const ports = known(container.ports);
    if (ports === undefined) return undefined;
    for (const port of ports) {
      const key = portKey(known(port));
      if (key === undefined) return undefined;
      result.add(key);
    }
  }
  return result;
}
