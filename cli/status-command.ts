/**
 * `palisade status`: what the stack's hosts report about themselves now, and where that is not what their image says.
 */
import { styleText } from "node:util";
import {
  ContainerPhase,
  type GetHostResponse,
  type GetIntegrityResponse,
  type Group,
  GroupPhase,
  Protocol,
} from "../hosts/api/gen/palisade/agent/v1/agent_pb.js";
import {
  describeDifference,
  factsOf,
  integrityDifferences,
  type IntegrityDifference,
} from "../provider/backends/index.js";
import { withAgent } from "./agent.js";
import { type OutputOptions, writeDocument } from "./output.js";
import { type Connection, findHosts, type HostKind, type HostRecord, readStack } from "./stack-state.js";
import { printable, table } from "./table.js";

/** Options of `palisade status`. */
export interface StatusOptions extends OutputOptions {
  host?: string;
  stack?: string;
}

/**
 * A host in the JSON of `palisade status`. What only a host that answers can report is absent when `error` is there.
 */
interface HostStatus {
  name: string;
  kind: HostKind;
  hostId?: string;
  endpoint?: string;
  accelerator?: string;
  /** Why the host could not be asked. */
  error?: string;
  ready: boolean;
  /** Why the host is not ready, or what of a ready host needs attention. */
  readyMessage?: string;
  agentVersion?: string;
  kernelVersion?: string;
  containerdVersion?: string;
  runtimeVersion?: string;
  /** RFC 3339. */
  certificateNotAfter?: string;
  integrity?: {
    secureBoot: boolean;
    lockdown: string;
    root?: { rootHash: string; mountPoint: string; signatureVerified: boolean; signaturesRequired: boolean };
    ipe?: { activePolicy: string; policyVersion: string; enforcing: boolean };
    mode: string;
    sealedLayers: { open: number; verified: number };
    selinux?: { enabled: boolean; enforcing: boolean; policy: string };
    /** Facts in which the host is not as its image says; absent when the stack does not know what the image says. */
    differences?: IntegrityDifference[];
  };
  groups?: GroupStatus[];
}

interface GroupStatus {
  name: string;
  /** Pending, Running, Succeeded, Failed, Stopped or Deleting. */
  state: string;
  /** What runs is not yet what was declared last. */
  isChanging: boolean;
  containers: number;
  runningContainers: number;
  restarts: number;
  endpoints: { address: string; protocol: string; port: number }[];
}

export async function status({ host: name, stack, output }: StatusOptions): Promise<number> {
  const { hosts } = await readStack(stack);
  const asked = name === undefined ? hosts : findHosts(hosts, name, "--host");
  // All at once, so that a host that does not answer does not delay the others.
  const reports = await Promise.all(asked.map(ask));
  if (output === "json") writeDocument({ hosts: reports });
  else if (reports.length === 0) process.stdout.write("The stack has no hosts.\n");
  else for (const report of reports) process.stdout.write(formatHost(report));
  return reports.every(({ ready, integrity }) => ready && !integrity?.differences?.length) ? 0 : 1;
}

async function ask(host: HostRecord): Promise<HostStatus> {
  const { name, kind, connection, accelerator } = host;
  const known: HostStatus = { name, kind, ready: false, ...(accelerator === undefined ? {} : { accelerator }) };
  if (!connection) return { ...known, error: "has not answered yet" };
  const { hostId, endpoint } = connection;
  try {
    return await withAgent(connection, async (agent) => {
      const facts = await agent.hosts.getHost({});
      const integrity = await agent.hosts.getIntegrity({});
      const { groups } = await agent.groups.listGroups({});
      return { ...known, hostId, endpoint, ...reported(facts, integrity, groups, connection, host.expectedIntegrity) };
    });
  } catch (error) {
    return { ...known, hostId, endpoint, error: error instanceof Error ? error.message : String(error) };
  }
}

function reported(
  facts: GetHostResponse,
  integrity: GetIntegrityResponse,
  groups: Group[],
  connection: Connection,
  expected: HostRecord["expectedIntegrity"],
): Partial<HostStatus> & { ready: boolean } {
  const { secureBoot, lockdown, root, ipe, mode, layers, selinux } = integrity;
  return {
    hostId: facts.hostId,
    ready: facts.ready,
    ...(facts.ready && facts.readyMessage === "" ? {} : { readyMessage: facts.readyMessage }),
    agentVersion: facts.agentVersion,
    kernelVersion: facts.kernelVersion,
    containerdVersion: facts.containerdVersion,
    runtimeVersion: facts.runtimeVersion,
    ...(facts.certificateNotAfter && { certificateNotAfter: isoOf(facts.certificateNotAfter) }),
    integrity: {
      secureBoot,
      lockdown,
      ...(root && {
        root: {
          rootHash: root.rootHash,
          mountPoint: root.mountPoint,
          signatureVerified: root.signatureVerified,
          signaturesRequired: root.signaturesRequired,
        },
      }),
      ...(ipe && {
        ipe: { activePolicy: ipe.activePolicy, policyVersion: ipe.policyVersion, enforcing: ipe.enforcing },
      }),
      mode,
      sealedLayers: {
        open: layers.length,
        verified: layers.filter(({ signatureVerified }) => signatureVerified).length,
      },
      ...(selinux && {
        selinux: { enabled: selinux.enabled, enforcing: selinux.enforcing, policy: selinux.policy },
      }),
      ...(expected && { differences: integrityDifferences(expected, factsOf(integrity, facts.kernelVersion)) }),
    },
    groups: groups.map((group) => groupStatus(group, connection)),
  };
}

function groupStatus({ spec, status, generation }: Group, { publishedPorts }: Connection): GroupStatus {
  const containers = status?.containers ?? [];
  return {
    name: spec?.name ?? "",
    state: phaseName(status?.phase ?? GroupPhase.UNSPECIFIED),
    isChanging: (status?.observedGeneration ?? 0n) !== generation,
    containers: spec?.containers.length ?? 0,
    runningContainers: containers.filter(({ phase }) => phase === ContainerPhase.RUNNING).length,
    restarts: containers.reduce((sum, { restartCount }) => sum + restartCount, 0),
    endpoints: publishedPorts
      .filter((published) =>
        spec?.ports.some(({ port, protocol }) => port === published.port && Protocol[protocol] === published.protocol),
      )
      .map(({ address, protocol, port }) => ({ address, protocol, port })),
  };
}

function formatHost(report: HostStatus): string {
  const { name, kind, hostId, endpoint, error, integrity } = report;
  if (!integrity) return `host ${name}: ${printable(error ?? "")}\n`;
  const on = (value: boolean | undefined) => (value ? "yes" : "no");
  const { root, ipe, selinux, sealedLayers } = integrity;
  const rows: [string, string][] = [
    ["ready", [report.ready ? "yes" : "no", printable(report.readyMessage ?? "")].filter(Boolean).join(": ")],
    ...(kind === "nested" ? [] : [["kind", kind] as [string, string]]),
    ["agent", `${endpoint ?? ""}, version ${report.agentVersion}`],
    // Only a virtual machine has an accelerator.
    ...(kind === "nested" ? [["accelerator", report.accelerator ?? ""] as [string, string]] : []),
    ["kernel", report.kernelVersion ?? ""],
    ["containerd", `${report.containerdVersion}, runtime ${report.runtimeVersion}`],
    ["certificate until", report.certificateNotAfter ?? ""],
    ["Secure Boot", on(integrity.secureBoot)],
    ["lockdown", integrity.lockdown],
    ["root hash", root ? `${root.rootHash} on ${root.mountPoint}` : "no verity device"],
    ["signature checked", `${on(root?.signatureVerified)}; unsigned ones refused: ${on(root?.signaturesRequired)}`],
    [
      "IPE",
      ipe?.activePolicy
        ? `${ipe.activePolicy} ${ipe.policyVersion}, ${ipe.enforcing ? "enforcing" : "audit"}`
        : "no policy",
    ],
    ["mode", integrity.mode || "not named"],
    ["sealed layers", `${sealedLayers.open} open, ${sealedLayers.verified} with a checked signature`],
    ["SELinux", selinux?.enabled ? `${selinux.enforcing ? "enforcing" : "permissive"}, ${selinux.policy}` : "disabled"],
  ];
  const lines = rows.map(([title, value]) => `  ${title.padEnd(18)}${printable(value)}\n`);
  return `host ${name} (${hostId})\n${lines.join("")}${formatDifferences(report)}${formatGroups(report.groups ?? [])}`;
}

/** In words as well as in red, which a file, a pipe and `NO_COLOR` do without. */
function formatDifferences({ integrity }: HostStatus): string {
  if (!integrity?.differences) return "";
  const { differences } = integrity;
  const title = `  ${"as its image".padEnd(18)}`;
  if (differences.length === 0) return `${title}yes\n`;
  const red = (text: string) => styleText("red", text, { stream: process.stdout });
  const lines = differences.map((one) => red(`    ${printable(describeDifference(one))}`) + "\n");
  return `${title}${red("NO: run `pulumi up`, which repairs it or fails")}\n${lines.join("")}`;
}

function formatGroups(groups: GroupStatus[]): string {
  if (groups.length === 0) return "  no groups\n";
  const rows = groups.map(({ name, state, isChanging, containers, runningContainers, restarts, endpoints }) =>
    [
      name,
      state + (isChanging ? " (changing)" : ""),
      `${runningContainers}/${containers}`,
      String(restarts),
      endpoints.map(({ address, protocol }) => `${address}/${protocol}`).join(", ") || "-",
    ].map(printable),
  );
  return table(["GROUP", "STATE", "RUNNING", "RESTARTS", "ENDPOINTS"], rows, "  ");
}

function phaseName(phase: GroupPhase): string {
  const name = GroupPhase[phase] ?? "UNSPECIFIED";
  return name.charAt(0) + name.slice(1).toLowerCase();
}

function isoOf({ seconds }: { seconds: bigint }): string {
  return new Date(Number(seconds) * 1000).toISOString();
}
