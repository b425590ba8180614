/**
 * Which values the arguments of a container group may have: one list of rules with a column per backend. Each rule
 * names every backend, so that none lacks it by oversight. `anything` says that a backend has no such limit.
 */
import { type Rule, rules } from "../internal/arguments.js";

export type Backend = "host" | "kubernetes" | "azure";

/** One rule in every backend. */
type Row<T> = Record<Backend, Rule<T>>;

const anything = (): undefined => undefined;
/** The backend refuses the argument itself, so its value is never looked at. */
const notTaken = anything;
const same = <T>(rule: Rule<T>): Row<T> => ({ host: rule, kubernetes: rule, azure: rule });

/** Where ACI's limits come from; the messages name these pages. */
export const azurePages = {
  quotas: "https://learn.microsoft.com/azure/container-instances/container-instances-resource-and-quota-limits",
  ports: "https://learn.microsoft.com/azure/container-instances/container-instances-faq",
  spot: "https://learn.microsoft.com/azure/container-instances/container-instances-spot-containers-overview",
  network: "https://learn.microsoft.com/azure/container-instances/container-instances-virtual-network-concepts",
  groups: "https://learn.microsoft.com/azure/container-instances/container-instances-container-groups",
  names: "https://learn.microsoft.com/azure/container-instances/container-instances-troubleshooting",
  gpu: "https://learn.microsoft.com/azure/container-instances/container-instances-gpu",
  resourceNames: "https://learn.microsoft.com/azure/azure-resource-manager/management/resource-name-rules",
};

/** Containers of a group at most, here and in Azure Container Instances. */
export const maximumContainers = 60;

/** @see https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted */
export const restricted = "the Pod Security Standard restricted forbids it";

/** A program in JavaScript may give a number, which an expression alone would read as its digits. */
const matches = (value: unknown, expression: RegExp): value is string =>
  typeof value === "string" && expression.test(value);

/** A text in a process's environment or arguments ends at a zero byte. */
const noZeroByte: Rule<string> = (value) =>
  typeof value === "string" && !value.includes("\0") ? undefined : "must be a text without a zero byte";

const count =
  (minimum: number, maximum: number, reason: string): Rule<number> =>
  (length) =>
    length >= minimum && length <= maximum ? undefined : reason;

/** CPU cores and GB come in steps of 0.01. */
const amount =
  (maximum = Infinity): Rule<number> =>
  (value) => {
    const hundredths = value * 100;
    const isStep = typeof value === "number" && Math.abs(hundredths - Math.round(hundredths)) < 1e-6;
    if (!isStep || value < 0.01) return "must be a number of at least 0.01, in steps of 0.01";
    return value > maximum ? `must be at most ${maximum}` : undefined;
  };

/**
 * Ports that ACI keeps for itself, first and last of each range.
 * @see https://learn.microsoft.com/azure/container-instances/container-instances-faq "Does the ACI service reserve ports for service
 * functionality?"; text in MicrosoftDocs/azure-compute-docs, articles/container-instances/container-instances-faq.yml
 */
const reservedByAzure = [
  [22, 22],
  [1025, 1027],
  [3389, 3399],
  [9999, 9999],
  [19000, 19000],
  [19080, 19080],
  [19100, 19100],
  [19390, 19390],
  [20000, 30000],
  [49152, 65534],
] as const;

const port = rules.integer(1, 65535);

const unreserved: Rule<number> = (value) => {
  const range = reservedByAzure.find(([first, last]) => value >= first && value <= last);
  if (!range) return port(value);
  const shown = range[0] === range[1] ? `port ${range[0]}` : `ports ${range[0]} to ${range[1]}`;
  return `ACI keeps ${shown} for itself (${azurePages.ports})`;
};

/** ACI pulls from registries with a public address, and from Azure's own. */
const publicRegistry: Rule<string> = (reference) => {
  const server = String(reference).split("/")[0]!;
  const privateAddress =
    /^(localhost|\[?::1\]?|127\.|10\.|192\.168\.|169\.254\.|172\.(1[6-9]|2\d|3[01])\.|\[?f[cd][0-9a-f]{2}:)/i;
  return privateAddress.test(server)
    ? `ACI pulls from registries with a public address and from Azure Container Registry only (${azurePages.network})`
    : undefined;
};

/** Names of Services begin with a letter; a group's name is that of its Service (RFC 1035). */
const serviceName: Rule<string> = (name) =>
  rules.dnsLabel(name) ?? (/^[a-z]/.test(name) ? undefined : "must begin with a letter on Kubernetes");

const azureGroupName: Rule<string> = (name) =>
  rules.dnsLabel(name) ??
  (name.includes("--") ? `must not hold '--' on Azure (${azurePages.resourceNames})` : undefined);

/** Which parts a credential has. One that becomes known later is `undefined`. */
export interface CredentialParts {
  username: boolean | undefined;
  password: boolean | undefined;
  identity: boolean | undefined;
}

const userAndPassword: Rule<CredentialParts> = ({ username, password }) =>
  username === false && password === false ? "needs username and password" : undefined;

const userOrIdentity: Rule<CredentialParts> = ({ username, password, identity }) =>
  username === false && password === false && identity === false
    ? "ACI needs username and password, or identity"
    : undefined;

const certificate: Rule<string> = (pem) =>
  typeof pem === "string" && pem.includes("-----BEGIN CERTIFICATE-----") ? undefined : "must be a PEM certificate";

/** A name that is one file in a folder. */
const fileName: Rule<string> = (name) =>
  /^[^/\0]+$/.test(name) && name !== "." && name !== ".."
    ? undefined
    : "must be the name of a file: no '/', no zero byte, neither '.' nor '..'";

/** Keys of Secrets; a pod's volume has the file under the same name. */
const secretKey: Rule<string> = (name) =>
  /^[-._a-zA-Z0-9]{1,253}$/.test(name) && name !== "." && !name.startsWith("..")
    ? undefined
    : "must be a key of a Secret: letters, digits, '-', '_' and '.', not '.' and without '..' in front";

const base64: Rule<string> = (content) =>
  typeof content === "string" &&
  /^(?:[A-Za-z0-9+/]{4})*(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?$/.test(content.replace(/[\r\n]/g, ""))
    ? undefined
    : "must be in base64";

const id = rules.integer(0, 2 ** 31 - 1);

const linuxOnly =
  (reason: string): Rule<string> =>
  (value) =>
    value === "Linux" ? undefined : `must be Linux: ${reason}`;

const someContainers = count(1, maximumContainers, `must be a list of 1 to ${maximumContainers} containers`);
const somePorts = count(
  1,
  65535,
  "must not be empty; leave ipAddress out for a group that nothing reaches from outside",
);

const someFiles = count(1, Infinity, "must hold at least one file; use emptyDir for an empty folder");

/** What the list has rules for. */
export interface ValueRules {
  groupName: Row<string>;
  osType: Row<string>;
  restartPolicy: Row<string>;
  containerCount: Row<number>;
  containerName: Row<string>;
  imageServer: Row<string>;
  commandWord: Row<string>;
  environmentName: Row<string>;
  environmentValue: Row<string>;
  cpu: Row<number>;
  memoryInGB: Row<number>;
  port: Row<number>;
  ipAddressType: Row<string>;
  ipAddressPortCount: Row<number>;
  credential: Row<CredentialParts>;
  certificateAuthority: Row<string>;
  volumeCount: Row<number>;
  volumeName: Row<string>;
  secretFileName: Row<string>;
  secretFileCount: Row<number>;
  secretFileContent: Row<string>;
  mountPath: Row<string>;
  runAsUser: Row<number>;
  runAsGroup: Row<number>;
  addedCapability: Row<string>;
  privilege: Row<boolean>;
  probeCommandLength: Row<number>;
  probePath: Row<string>;
  probeHeaderName: Row<string>;
  livenessSuccessThreshold: Row<number>;
}

/** The list. Messages about the values of secrets never show them. */
export const valueRules: ValueRules = {
  groupName: { host: rules.dnsLabel, kubernetes: serviceName, azure: azureGroupName },
  osType: {
    host: linuxOnly("hosts run Linux containers only"),
    kubernetes: linuxOnly("groups on Kubernetes run Linux containers only"),
    azure: rules.oneOf("Linux", "Windows"),
  },
  restartPolicy: same(rules.oneOf("Always", "OnFailure", "Never")),
  containerCount: {
    host: someContainers,
    kubernetes: someContainers,
    azure: count(
      1,
      maximumContainers,
      `ACI runs 1 to ${maximumContainers} containers in a group (${azurePages.quotas})`,
    ),
  },
  /** Names of containers and init containers. */
  containerName: same(rules.dnsLabel),
  /** The reference of an image, or the server of a registry. */
  imageServer: { host: anything, kubernetes: anything, azure: publicRegistry },
  commandWord: same(noZeroByte),
  environmentName: {
    host: (name) =>
      matches(name, /^[^=\0]+$/) ? undefined : "must not be empty and must hold neither '=' nor a zero byte",
    // Names that every version of Kubernetes takes; they are also keys of the Secret with the secure values.
    kubernetes: (name) =>
      matches(name, /^[-._a-zA-Z][-._a-zA-Z0-9]*$/) && name !== "." && !name.startsWith("..")
        ? undefined
        : "Kubernetes takes letters, digits, '-', '_' and '.', no digit first, not '.' and no '..' in front",
    azure: (name) =>
      matches(name, /^[A-Za-z0-9]([A-Za-z0-9_]{0,61}[A-Za-z0-9])?$/)
        ? undefined
        : `ACI takes 1 to 63 letters, digits and '_', '_' not at the ends (${azurePages.names})`,
  },
  environmentValue: same(noZeroByte),
  /** Of one container. Those of a group on Azure are limited together as well. */
  cpu: { host: amount(64), kubernetes: amount(), azure: amount() },
  memoryInGB: { host: amount(1024), kubernetes: amount(), azure: amount() },
  port: { host: port, kubernetes: port, azure: unreserved },
  ipAddressType: {
    host: (type) =>
      type === "Public"
        ? undefined
        : type === "Private"
          ? "a host has no virtual network to be private in; leave ipAddress out for a group that only its host reaches"
          : "must be Public",
    kubernetes: rules.oneOf("Public", "Private"),
    azure: rules.oneOf("Public", "Private"),
  },
  /** Nothing is open without ports, and some backends take an empty list for every port. */
  ipAddressPortCount: {
    host: somePorts,
    kubernetes: somePorts,
    azure: (length) =>
      somePorts(length) ?? (length > 5 ? `ACI opens at most 5 ports of an address (${azurePages.quotas})` : undefined),
  },
  credential: { host: anything, kubernetes: userAndPassword, azure: userOrIdentity },
  /** CA of a registry's certificate. */
  certificateAuthority: { host: certificate, kubernetes: notTaken, azure: notTaken },
  volumeCount: {
    host: notTaken,
    kubernetes: anything,
    azure: count(0, 20, `ACI mounts at most 20 volumes in a group (${azurePages.quotas})`),
  },
  volumeName: {
    host: notTaken,
    kubernetes: rules.dnsLabel,
    azure: (name) =>
      /^(?!.*--)[a-z0-9][a-z0-9-]{3,61}[a-z0-9]$/.test(name)
        ? undefined
        : `ACI takes 5 to 63 of a to z, 0 to 9 and '-', without '--' (${azurePages.names})`,
  },
  /** Names of the files of a secret volume. */
  secretFileName: { host: notTaken, kubernetes: secretKey, azure: fileName },
  /** Kubernetes takes an empty list of files for all that its Secret holds. */
  secretFileCount: { host: notTaken, kubernetes: someFiles, azure: someFiles },
  secretFileContent: { host: notTaken, kubernetes: base64, azure: base64 },
  mountPath: same<string>((path) =>
    /^\/[^:\0]+$/.test(path) ? undefined : "must be an absolute path below /, without ':'",
  ),
  runAsUser: { host: notTaken, kubernetes: (user) => id(user) ?? (user === 0 ? restricted : undefined), azure: id },
  runAsGroup: { host: notTaken, kubernetes: id, azure: id },
  addedCapability: {
    host: notTaken,
    kubernetes: (capability) => (capability === "NET_BIND_SERVICE" ? undefined : restricted),
    azure: rules.text,
  },
  /** `privileged` and `allowPrivilegeEscalation`. */
  privilege: {
    host: notTaken,
    kubernetes: (value) => rules.boolean(value) ?? (value ? restricted : undefined),
    azure: rules.boolean,
  },
  probeCommandLength: same(count(1, Infinity, "must not be empty: there is nothing to run")),
  probePath: same<string>((path) =>
    typeof path === "string" && path.startsWith("/") && noZeroByte(path) === undefined
      ? undefined
      : "must begin with '/'",
  ),
  /** RFC 9110, section 5.1. */
  probeHeaderName: same<string>((name) =>
    typeof name === "string" && /^[!#$%&'*+.^_`|~0-9A-Za-z-]+$/.test(name) ? undefined : "must be the name of a header",
  ),
  livenessSuccessThreshold: {
    host: notTaken,
    kubernetes: (value) => (value === 1 ? undefined : "must be 1: Kubernetes takes one success as life"),
    azure: anything,
  },
};
