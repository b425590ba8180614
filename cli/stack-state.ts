/** Hosts and groups of a stack, read from Pulumi's state. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import * as v from "valibot";
import { decode, object } from "../shared/decode.js";
import type { ExpectedIntegrity } from "../provider/backends/index.js";
import { stackOfEnvironment } from "./arguments.js";
import { pulumiEnvironment } from "./environment.js";

/** How a host's agent is reached: the schema's HostConnection. */
export interface Connection {
  hostId: string;
  endpoint: string;
  certificateAuthority: string;
  clientCertificateFile: string;
  clientKeyFile: string;
  publishedPorts: { port: number; protocol: "TCP" | "UDP"; address: string }[];
}

/**
 * `nested`: a virtual machine of this machine. `bare-metal`: a machine of its own. `external`: a host of another stack,
 * on which this stack has groups.
 */
export type HostKind = "nested" | "bare-metal" | "external";

/** A host of the stack. */
export interface HostRecord {
  kind: HostKind;
  /** The component's name, else the machine's; the id of an external host. */
  name: string;
  /** Absent until the host has answered for the first time. */
  connection?: Connection;
  accelerator?: string;
  /** The file with the serial console; only nested hosts have one. */
  serialLog?: string;
  /** What the host has to report by its image. Absent where the stack does not know it. */
  expectedIntegrity?: ExpectedIntegrity;
}

/** A host whose connection is known. */
export type ReachableHost = HostRecord & { connection: Connection };

/** A group of the stack. */
export interface GroupRecord {
  /** Its name on its host. */
  name: string;
  hostId: string;
  /**
   * That of the host, where the stack has the host: the one in the group's state is as old as the group's last update.
   */
  connection: Connection;
}

/** The hosts and groups of a stack. */
export interface StackState {
  hosts: HostRecord[];
  groups: GroupRecord[];
}

interface ExportedResource {
  urn: string;
  type: string;
  parent?: string;
  /** True for a resource that a replacement is about to remove. */
  delete?: boolean;
  outputs?: Record<string, unknown>;
}

/** Marks a secret in a state: https://www.pulumi.com/docs/iac/concepts/secrets/ */
const signature = "4dabf18193072939515e22adb298388d";
const secretSignature = "1b47061264138c4ac30d75fd1eb44270";

/** A secret is needed that the state does not hold in clear. */
class SecretsNeeded extends Error {}

/**
 * Asks the plain `pulumi` of PATH in the current folder. Secrets are requested only when a host's connection contains
 * one.
 *
 * @param stack its name; default: `$PULUMI_STACK`, `$STACK`, else `local`
 * @throws Error when there is no such stack, with Pulumi's own words.
 */
export async function readStack(stack?: string): Promise<StackState> {
  const name = stack ?? stackOfEnvironment();
  try {
    return parseExport(await exportStack(name, []));
  } catch (error) {
    if (!(error instanceof SecretsNeeded)) throw error;
    return parseExport(await exportStack(name, ["--show-secrets"]));
  }
}

async function exportStack(name: string, options: string[]): Promise<string> {
  const defaults = pulumiEnvironment();
  // The caller's own backend and passphrase go first: a stack of a consumer's project is not in our backend.
  const own = process.env["PULUMI_BACKEND_URL"] !== undefined;
  const environment = {
    ...process.env,
    ...(own ? {} : defaults),
    // The caller's pulumi, else the clone's.
    PATH: [process.env["PATH"], defaults["PATH"]].join(":"),
  };
  const args = ["stack", "export", "--stack", name, "--non-interactive", ...options];
  try {
    const { stdout } = await promisify(execFile)("pulumi", args, { env: environment, maxBuffer: 256 * 1024 * 1024 });
    return stdout;
  } catch (error) {
    const { stderr, code } = error as { stderr?: string; code?: unknown };
    if (code === "ENOENT") throw new Error("pulumi is not on PATH; run `make setup`, or install it", { cause: error });
    if (stderr === undefined) throw error;
    const advice = "choose another with --stack, or run `make up`";
    throw new Error(`stack ${name} cannot be read: ${stderr.trim()}; ${advice}`, { cause: error });
  }
}

/** Reads the JSON of `pulumi stack export`. @throws Error when it is no such JSON. */
export function parseExport(text: string): StackState {
  const state: StackState = { hosts: [], groups: [] };
  for (const { urn, type, parent, outputs = {}, delete: pendingDelete } of resourcesOf(text)) {
    if (pendingDelete) continue;
    if (type === "palisade:index:VirtualMachine") {
      state.hosts.push({
        kind: "nested",
        name: nameOf(parent?.includes("palisade:index:NestedHost::") ? parent : urn),
        ...connectionOf(outputs["connection"]),
        accelerator: clear(outputs["accelerator"]) as string | undefined,
        serialLog: clear(outputs["serialLog"]) as string | undefined,
        ...expectedOf(outputs),
      });
    } else if (type === "palisade:index:BareMetalHost") {
      state.hosts.push({
        kind: "bare-metal",
        name: nameOf(urn),
        ...connectionOf(outputs["connection"]),
        ...expectedOf(outputs),
      });
    } else if (type === "palisade:index:GroupDeployment") {
      const { connection } = connectionOf(outputs["host"]);
      // A group that was never declared on its host has no outputs yet.
      if (connection)
        state.groups.push({ name: clear(outputs["name"]) as string, hostId: connection.hostId, connection });
    }
  }
  for (const group of state.groups) {
    const host = state.hosts.find(({ connection }) => connection?.hostId === group.hostId);
    if (host?.connection) group.connection = host.connection;
    else state.hosts.push({ kind: "external", name: group.hostId, connection: group.connection });
  }
  return state;
}

const exportSchema = object({
  deployment: v.nullish(object({ resources: v.nullish(v.array(object({ urn: v.string(), type: v.string() }))) })),
});

function resourcesOf(text: string): ExportedResource[] {
  const { deployment } = decode(exportSchema, text, "pulumi stack export");
  return deployment?.resources ?? [];
}

function connectionOf(value: unknown): { connection?: Connection } {
  const connection = clear(value) as Partial<Connection> | null | undefined;
  if (!connection?.hostId || !connection.endpoint) return {};
  return { connection: { ...connection, publishedPorts: connection.publishedPorts ?? [] } as Connection };
}

function expectedOf({ expectedIntegrity }: Record<string, unknown>): { expectedIntegrity?: ExpectedIntegrity } {
  const expected = clear(expectedIntegrity);
  return typeof expected === "object" && expected !== null ? { expectedIntegrity: expected } : {};
}

/** The value with its secrets in clear. @throws SecretsNeeded when the state has them encrypted. */
function clear(value: unknown): unknown {
  if (typeof value !== "object" || value === null) return value;
  if (Array.isArray(value)) return value.map(clear);
  const record = value as Record<string, unknown>;
  if (record[signature] === secretSignature) {
    if (typeof record["plaintext"] !== "string") throw new SecretsNeeded();
    return clear(JSON.parse(record["plaintext"]));
  }
  return Object.fromEntries(Object.entries(record).map(([name, one]) => [name, clear(one)]));
}

function nameOf(urn: string): string {
  return urn.slice(urn.lastIndexOf("::") + 2);
}

/**
 * The hosts with this name or id; all hosts when none is given.
 *
 * @param argument the argument's name on the command line, for the error
 * @throws Error that names the hosts which the stack has.
 */
export function findHosts(hosts: HostRecord[], name: string | undefined, argument: string): HostRecord[] {
  if (name === undefined) {
    if (hosts.length === 0) throw new Error("the stack has no hosts");
    return hosts;
  }
  const found = hosts.filter((host) => host.name === name || host.connection?.hostId === name);
  if (found.length > 0) return found;
  const names = hosts.map((host) => host.name).join(", ") || "none";
  throw new Error(`${argument}: '${name}' is no host of the stack; its hosts: ${names}`);
}
