/** Hosts and groups of a stack, as Pulumi's state has them. */
import { execFile } from "node:child_process";
import { promisify } from "node:util";
import * as v from "valibot";
import { decode, object } from "../shared/decode.js";
import { pulumiEnvironment } from "./environment.js";

/** How a host's agent is reached; as the schema's HostConnection. */
export interface Connection {
  hostId: string;
  endpoint: string;
  certificateAuthority: string;
  clientCertificateFile: string;
  clientKeyFile: string;
  publishedPorts: { port: number; protocol: "TCP" | "UDP"; address: string }[];
}

/** A host of the stack. */
export interface HostRecord {
  /** The component's name, else the machine's. */
  name: string;
  connection?: Connection;
  accelerator?: string;
  serialLog?: string;
}

/** A group of the stack. */
export interface GroupRecord {
  /** On its host. */
  name: string;
  hostId: string;
  /** The host's own where the stack has the host: the group's is as old as its last update. */
  connection: Connection;
}

/** What a stack has on hosts. */
export interface StackState {
  hosts: HostRecord[];
  groups: GroupRecord[];
}

interface ExportedResource {
  urn: string;
  type: string;
  parent?: string;
  /** True for what a replacement is about to remove. */
  delete?: boolean;
  outputs?: Record<string, unknown>;
}

/**
 * Asks the plain `pulumi` of PATH in the present folder.
 *
 * @param stack its name; default: `$PULUMI_STACK`, `$STACK`, else `local`
 * @throws Error when there is no such stack, with Pulumi's own words.
 */
export async function readStack(stack?: string): Promise<StackState> {
  const defaults = pulumiEnvironment();
  // The caller's own backend and passphrase go first: a stack of a consumer's project is not in our backend.
  const own = process.env["PULUMI_BACKEND_URL"] !== undefined;
  const environment = {
    ...process.env,
    ...(own ? {} : defaults),
    // The caller's pulumi, else the clone's.
    PATH: [process.env["PATH"], defaults["PATH"]].join(":"),
  };
  const name = stack ?? defaults["PULUMI_STACK"]!;
  try {
    const { stdout } = await promisify(execFile)("pulumi", ["stack", "export", "--stack", name, "--non-interactive"], {
      env: environment,
      maxBuffer: 256 * 1024 * 1024,
    });
    return parseExport(stdout);
  } catch (error) {
    const { stderr, code } = error as { stderr?: string; code?: unknown };
    if (code === "ENOENT") throw new Error("pulumi is not on PATH; run `make setup`, or install it");
    if (stderr === undefined) throw error;
    throw new Error(`stack ${name} cannot be read: ${stderr.trim()}; choose another with --stack, or run \`make up\``);
  }
}

const exportSchema = object({
  deployment: v.nullish(object({ resources: v.nullish(v.array(object({ urn: v.string(), type: v.string() }))) })),
});

/** Reads the JSON of `pulumi stack export`. */
export function parseExport(text: string): StackState {
  const { deployment } = decode(exportSchema, text, "pulumi stack export");
  const state: StackState = { hosts: [], groups: [] };
  for (const { urn, type, parent, outputs = {}, delete: pendingDelete } of (deployment?.resources ??
    []) as ExportedResource[]) {
    if (pendingDelete) continue;
    if (type === "palisade:index:VirtualMachine") {
      const connection = outputs["connection"] as Connection | undefined;
      state.hosts.push({
        name: nameOf(parent?.includes("palisade:index:NestedHost::") ? parent : urn),
        ...(connection?.hostId ? { connection } : {}),
        accelerator: outputs["accelerator"] as string | undefined,
        serialLog: outputs["serialLog"] as string | undefined,
      });
    } else if (type === "palisade:index:GroupDeployment") {
      const connection = outputs["host"] as Connection;
      state.groups.push({ name: outputs["name"] as string, hostId: connection.hostId, connection });
    }
  }
  for (const group of state.groups) {
    const host = state.hosts.find(({ connection }) => connection?.hostId === group.hostId);
    if (host?.connection) group.connection = host.connection;
  }
  return state;
}

function nameOf(urn: string): string {
  return urn.slice(urn.lastIndexOf("::") + 2);
}
