/**
 * What the operator sets: `pulumi config set palisade:<name> <value>`. Every wrong value is refused at once, with its
 * path.
 */
import * as pulumi from "@pulumi/pulumi";
import {
  ArgumentError,
  imageReferenceForm,
  imageReferenceProblem,
  type Problem,
  registryServerProblem,
} from "../components/index.js";

/** The environments this release can make; all but local are experimental. */
export const environments = ["local", "metal", "azure", "kubernetes"] as const;
export type Environment = (typeof environments)[number];

/** Settings of a stack. Absent ones take the components' defaults. */
export interface Configuration {
  /** Which program runs. Default: local. */
  environment: Environment;
  /** Virtual CPUs of the host. */
  cpus: number;
  /** Memory of the host in MiB. */
  memoryMiB: number;
  /** Size of the host's state disk in GiB. */
  stateDiskGiB: number;
  /** Whether the state disk is protected from deletion. */
  protectState: boolean;
  /** Whether a host that cannot be reached may be deleted. */
  forceDestroy: boolean;
  /** auto, kvm or tcg. */
  acceleration: string;
  /** Integrity mode of the host: enforce, audit or jit. */
  mode: string;
  /** Port of 127.0.0.1 on which the group answers; 0 chooses a free one and keeps it. */
  hostPort: number;
  /** Digest of the host's image in this machine's store; absent: the image is built here. */
  imageDigest?: string;
  /** Folder of `palisade keys init`; absent: in the operator's home. */
  keysDirectory?: string;
  /** Image of the website by digest; local builds its own, the other environments need one that is in a registry. */
  image?: string;
  /** Registry of the image, when it asks for credentials. */
  registryServer?: string;
  registryUsername?: string;
  /** Set it with `pulumi config set --secret`. */
  registryPassword?: string;
  /** metal: address of the machine, now of its rescue system and later of the host. */
  sshHost?: string;
  /** metal: port of the rescue system's SSH server. */
  sshPort: number;
  /** metal: key of its root. Set it with `pulumi config set --secret`. */
  sshPrivateKey?: string;
  /** metal: its public host key, `ssh-ed25519 …`. The machine with this key becomes the host. */
  sshHostKey?: string;
  /** metal: serial number of the disk that is written. */
  diskSerial?: string;
  /** metal: serial number of a disk whose content may be lost. Absent: a disk with other content is refused. */
  allowOverwrite?: string;
  /** azure: an existing resource group. */
  resourceGroupName?: string;
  /** azure: the region. Absent: that of the resource group. */
  location?: string;
  /** kubernetes: an existing namespace. Absent: that of the current context. */
  namespace?: string;
  /** kubernetes: a RuntimeClass of the cluster. Absent: the cluster's runtime. */
  runtimeClassName?: string;
  /** Where disks, machines and registries are kept; absent: the provider's default. */
  stateDirectory?: string;
  /** Where builds are kept; absent: the provider's default. */
  cacheDirectory?: string;
}

type Reader<T> = (text: string) => T | Error;

const text: Reader<string> = (value) => (value === "" ? new Error("must not be empty") : value);

const boolean: Reader<boolean> = (value) =>
  value === "true" ? true : value === "false" ? false : new Error("must be true or false");

function integer(minimum: number, maximum: number): Reader<number> {
  return (value) =>
    /^-?\d+$/.test(value) && Number(value) >= minimum && Number(value) <= maximum
      ? Number(value)
      : new Error(`must be a whole number from ${minimum} to ${maximum}`);
}

function oneOf<T extends string>(allowed: readonly T[]): Reader<T> {
  return (value) =>
    (allowed as readonly string[]).includes(value) ? (value as T) : new Error(`must be ${allowed.join(" or ")}`);
}

const readers = {
  environment: oneOf(environments),
  image: (value) => {
    const problem = imageReferenceProblem(value);
    return problem ? new Error(`must be ${imageReferenceForm}: ${problem}`) : value;
  },
  registryServer: (value) => {
    const problem = registryServerProblem(value);
    return problem ? new Error(problem) : value;
  },
  registryUsername: text,
  registryPassword: text,
  sshHost: text,
  sshPort: integer(1, 65535),
  sshPrivateKey: text,
  sshHostKey: text,
  diskSerial: text,
  allowOverwrite: text,
  resourceGroupName: text,
  location: text,
  namespace: text,
  runtimeClassName: text,
  cpus: integer(1, 64),
  memoryMiB: integer(1024, 1024 * 1024),
  stateDiskGiB: integer(1, 65536),
  protectState: boolean,
  forceDestroy: boolean,
  acceleration: oneOf(["auto", "kvm", "tcg"]),
  mode: oneOf(["enforce", "audit", "jit"]),
  hostPort: integer(0, 65535),
  imageDigest: (value) =>
    /^sha256:[0-9a-f]{64}$/.test(value) ? value : new Error("must be sha256: and 64 hexadecimal digits"),
  keysDirectory: text,
  stateDirectory: text,
  cacheDirectory: text,
} satisfies { [K in keyof Required<Configuration>]: Reader<Required<Configuration>[K]> };

/** Settings without which an environment cannot be made. */
const required: Record<Environment, (keyof Configuration)[]> = {
  local: [],
  metal: ["image", "sshHost", "sshPrivateKey", "sshHostKey", "diskSerial"],
  azure: ["image", "resourceGroupName"],
  kubernetes: ["image"],
};

/** Settings whose values no message shows. */
const secrets: string[] = ["registryPassword", "sshPrivateKey"] satisfies (keyof Configuration)[];

/**
 * The same as in the `config` section of Pulumi.yaml, for programs that run without that file. A test compares the two.
 */
export const defaults: Configuration = {
  environment: "local",
  cpus: 2,
  memoryMiB: 2048,
  stateDiskGiB: 8,
  protectState: false,
  forceDestroy: false,
  acceleration: "auto",
  mode: "enforce",
  hostPort: 0,
  sshPort: 22,
};

/**
 * Reads `palisade:*` of the stack's configuration.
 *
 * @throws ArgumentError naming each wrong or unknown key.
 */
export function readConfiguration(): Configuration {
  const config = new pulumi.Config("palisade");
  const problems: Problem[] = [];
  const result: Record<string, unknown> = { ...defaults };
  for (const [key, read] of Object.entries(readers) as [string, Reader<unknown>][]) {
    const value = config.get(key);
    if (value === undefined) continue;
    const parsed = read(value);
    if (parsed instanceof Error) {
      const shown = secrets.includes(key) ? {} : { value: JSON.stringify(value) };
      problems.push({ path: `palisade:${key}`, ...shown, reason: parsed.message });
    } else {
      result[key] = parsed;
    }
  }
  for (const key of Object.keys(pulumi.runtime.allConfig())) {
    const [namespace, name] = key.split(":");
    if (namespace === "palisade" && name !== undefined && !Object.hasOwn(readers, name)) {
      problems.push({ path: key, reason: `no such setting; there are ${Object.keys(readers).join(", ")}` });
    }
  }
  const environment = result["environment"] as Environment;
  for (const key of required[environment]) {
    if (config.get(key) === undefined) {
      problems.push({ path: `palisade:${key}`, reason: `is required for the environment ${environment}` });
    }
  }
  if (problems.length > 0) throw new ArgumentError("Stack configuration", problems);
  return result as unknown as Configuration;
}

/** Credentials of the image's registry, its password secret; absent without `registryServer`. */
export function registryCredentials(configuration: Configuration) {
  const { registryServer: server, registryUsername: username, registryPassword: password } = configuration;
  return server === undefined
    ? undefined
    : [{ server, username, password: password === undefined ? undefined : pulumi.secret(password) }];
}
