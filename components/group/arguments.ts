/** The arguments of a container group, and what is refused of them before anything is asked of a host. */
import * as pulumi from "@pulumi/pulumi";
import { type ArgumentCheck, known, rules } from "../internal/arguments.js";
import type * as inputs from "../sdk/types/input.js";

/** As in Azure Container Instances: the ports under which the group is reached. */
export interface IpAddressArgs {
  /** Ports of the group published on its host's address; each is one that a container listens on. */
  ports: pulumi.Input<pulumi.Input<inputs.ContainerPortArgs>[]>;
  /** Only `Public`: on the host's address. Default: Public. */
  type?: pulumi.Input<string>;
}

/** Arguments of `ContainerGroup`: those of `azure-native.containerinstance.ContainerGroup`, and `host`. */
export interface ContainerGroupArgs {
  /** Where the group runs: the `connection` of a host. Another host replaces the group. */
  host: pulumi.Input<inputs.HostConnectionArgs>;
  /** Name on the host, a DNS label, unique there. Default: the component's name. A change replaces the group. */
  containerGroupName?: pulumi.Input<string>;
  /** 1 to 60 containers; they share one network namespace. */
  containers: pulumi.Input<pulumi.Input<inputs.ContainerArgs>[]>;
  /** Registries that need credentials or a CA. Passwords are write-only. */
  imageRegistryCredentials?: pulumi.Input<pulumi.Input<inputs.ImageRegistryCredentialArgs>[]>;
  /** Absent: the group is reached on its host only. */
  ipAddress?: pulumi.Input<IpAddressArgs>;
  /** Only `Linux`. Default: Linux. */
  osType?: pulumi.Input<string>;
  /** Always, OnFailure or Never. Default: Always. */
  restartPolicy?: pulumi.Input<string>;
}

const groupFields = [
  "host",
  "containerGroupName",
  "containers",
  "imageRegistryCredentials",
  "ipAddress",
  "osType",
  "restartPolicy",
] as const satisfies readonly (keyof ContainerGroupArgs)[];

const onAzureOnly = "belongs to Azure and means nothing on a host; leave it out";

/** Arguments of azure-native's group that a host cannot honour; ignoring them would change what the program means. */
const refusedGroupFields: Record<string, string> = {
  confidentialComputeProperties: "a host has no confidential containers",
  containerGroupProfile: onAzureOnly,
  diagnostics: "a host sends no logs to Azure; read them with `palisade logs`",
  dnsConfig: "a host's groups use the host's DNS servers",
  encryptionProperties: "a group's data is on its host's state disk; there is no key of a group's own",
  extensions: onAzureOnly,
  identity: "a host has no managed identities; pass credentials as secureValue of an environment variable",
  initContainers: "a host runs no init containers",
  location: onAzureOnly,
  priority: "a host has no spot capacity",
  resourceGroupName: onAzureOnly,
  sku: onAzureOnly,
  standbyPoolProfile: onAzureOnly,
  subnetIds: "a host's groups are in no virtual network of Azure",
  tags: "a host keeps no tags of a group",
  volumes: "a host mounts no volumes into groups",
  zones: "a host is one machine; put groups on several hosts instead",
};

const refusedContainerFields: Record<string, string> = {
  configMap: "a host has no configuration maps; use environmentVariables",
  livenessProbe: "a host probes no containers; it restarts those that end",
  readinessProbe: "a host probes no containers; it restarts those that end",
  securityContext: "every container runs with the host's own profile",
  volumeMounts: "a host mounts no volumes into groups",
};

/** Checks everything that is known now. What is not is checked by the provider, in preview too as soon as it is known. */
export function checkGroupArguments(check: ArgumentCheck, args: ContainerGroupArgs): void {
  check.keys("", args, groupFields, refusedGroupFields);
  check.require("host", args.host);
  const host = known(args.host);
  if (host !== undefined && (typeof host !== "object" || !("hostId" in host) || host instanceof pulumi.Resource)) {
    check.add("host", undefined, "must be the connection of a host, e.g. host.connection");
  }
  check.require("containers", args.containers);
  const containers = known(args.containers);
  if (containers !== undefined) {
    if (!Array.isArray(containers) || containers.length < 1 || containers.length > 60) {
      check.add("containers", undefined, "must be a list of 1 to 60 containers");
    } else {
      containers.forEach((container, index) => checkContainer(check, `containers[${index}]`, known(container)));
      checkUnique(check, containers);
    }
  }
  known(args.imageRegistryCredentials)?.forEach((credential, index) =>
    checkCredential(check, `imageRegistryCredentials[${index}]`, known(credential)),
  );
  checkIpAddress(check, known(args.ipAddress), containers);
}

function checkContainer(check: ArgumentCheck, at: string, container: inputs.ContainerArgs | undefined): void {
  if (container === undefined) return;
  check.keys(
    at,
    container,
    ["name", "image", "command", "environmentVariables", "ports", "resources"],
    refusedContainerFields,
  );
  for (const field of ["name", "image", "resources"] as const) check.require(`${at}.${field}`, container[field]);
  check.field(`${at}.name`, container.name, rules.dnsLabel);
  check.field(`${at}.image`, container.image, rules.imageReference);
  known(container.ports)?.forEach((port, index) => checkPort(check, `${at}.ports[${index}]`, known(port)));
  known(container.environmentVariables)?.forEach((variable, index) =>
    checkVariable(check, `${at}.environmentVariables[${index}]`, known(variable)),
  );
  checkResources(check, `${at}.resources`, known(container.resources));
}

function checkPort(check: ArgumentCheck, at: string, port: inputs.ContainerPortArgs | undefined): void {
  if (port === undefined) return;
  check.keys(at, port, ["port", "protocol"]);
  check.require(`${at}.port`, port.port);
  check.field(`${at}.port`, port.port, rules.integer(1, 65535));
  check.field(`${at}.protocol`, port.protocol as pulumi.Input<string> | undefined, rules.oneOf("TCP", "UDP"));
}

function checkVariable(check: ArgumentCheck, at: string, variable: inputs.EnvironmentVariableArgs | undefined): void {
  if (variable === undefined) return;
  check.keys(at, variable, ["name", "value", "secureValue"], {
    secureValueReference: "a host has no Key Vault; use secureValue",
  });
  check.require(`${at}.name`, variable.name);
  check.field(`${at}.name`, variable.name, (name) =>
    /^[^=\0]+$/.test(name) ? undefined : "must not be empty and must hold neither '=' nor a zero byte",
  );
  const given = [variable.value, variable.secureValue].filter((value) => value !== undefined && value !== null);
  if (given.length !== 1) check.addSecret(at, "needs exactly one of value and secureValue");
}

function checkResources(
  check: ArgumentCheck,
  at: string,
  resources: inputs.ResourceRequirementsArgs | undefined,
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
    check.keys(`${at}.${name}`, amounts, ["cpu", "memoryInGB"], { gpu: "a host has no GPUs to give" });
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

function checkUnique(check: ArgumentCheck, containers: pulumi.Input<inputs.ContainerArgs>[]): void {
  const names = new Map<string, string>();
  const ports = new Map<string, string>();
  containers.forEach((input, index) => {
    const container = known(input);
    const name = known(container?.name);
    if (name !== undefined) {
      if (names.has(name)) check.add(`containers[${index}].name`, name, `is the name of ${names.get(name)} already`);
      else names.set(name, `containers[${index}]`);
    }
    known(container?.ports)?.forEach((inner, position) => {
      const key = portKey(known(inner));
      const at = `containers[${index}].ports[${position}]`;
      if (key === undefined) return;
      const taken = ports.get(key);
      if (taken) check.add(`${at}.port`, key, `is taken by ${taken}; the containers share one network namespace`);
      else ports.set(key, at);
    });
  });
}

function portKey(port: inputs.ContainerPortArgs | undefined): string | undefined {
  const number = known(port?.port);
  if (number === undefined || pulumi.Output.isInstance(port?.protocol)) return undefined;
  return `${number}/${known(port?.protocol) ?? "TCP"}`;
}

function checkCredential(
  check: ArgumentCheck,
  at: string,
  credential: inputs.ImageRegistryCredentialArgs | undefined,
): void {
  if (credential === undefined) return;
  check.keys(at, credential, ["server", "username", "password", "ca"], {
    identity: "a host has no managed identities; use username and password",
    identityUrl: "a host has no managed identities; use username and password",
    passwordReference: "a host has no Key Vault; use password",
  });
  check.require(`${at}.server`, credential.server);
  check.field(`${at}.server`, credential.server, (server) =>
    /^(\[[0-9a-fA-F:]+\]|[^\s/:]+)(:\d+)?$/.test(server)
      ? undefined
      : "must be host[:port] as in image references, without a scheme",
  );
  if (credential.password !== undefined && credential.username === undefined) {
    check.require(`${at}.username`, undefined);
  }
}

/** Also used for an `ipAddress` that becomes known later. */
export function checkIpAddress(
  check: ArgumentCheck,
  ipAddress: IpAddressArgs | undefined,
  containers: pulumi.Input<inputs.ContainerArgs>[] | undefined,
): void {
  if (ipAddress === undefined) return;
  check.keys("ipAddress", ipAddress, ["ports", "type"], {
    autoGeneratedDomainNameLabelScope: "a host gives groups no domain names",
    dnsNameLabel: "a host gives groups no domain names",
    ip: "a group is reached on its host's address",
  });
  check.field("ipAddress.type", ipAddress.type, (type) =>
    type === "Public"
      ? undefined
      : type === "Private"
        ? "a host has no virtual network to be private in; leave ipAddress out for a group that only its host reaches"
        : "must be Public",
  );
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
function listeningPorts(containers: pulumi.Input<inputs.ContainerArgs>[] | undefined): Set<string> | undefined {
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
