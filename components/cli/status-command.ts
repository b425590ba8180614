/** `palisade status`: what the stack's hosts say of themselves, now. */
import { parseArgs } from "node:util";
import {
  ContainerPhase,
  type GetHostResponse,
  type GetIntegrityResponse,
  type Group,
  GroupPhase,
  Protocol,
} from "../../hosts/api/gen/palisade/agent/v1/agent_pb.js";
import { withAgent } from "./agent.js";
import type { Command } from "./commands.js";
import { readStack, type Connection, type HostRecord } from "./stack-state.js";
import { printable, table } from "./table.js";

export const statusCommand: Command = {
  usage: "status [--stack STACK]",
  help: "hosts, their integrity and their groups, as the hosts report them",
  async run(args) {
    const { values } = parseArgs({ args, options: { stack: { type: "string" } } });
    const state = await readStack(values.stack);
    if (state.hosts.length === 0) process.stdout.write("The stack has no hosts.\n");
    let failed = false;
    for (const host of state.hosts) {
      const { text, ok } = await describe(host);
      process.stdout.write(text);
      failed ||= !ok;
    }
    return failed ? 1 : 0;
  },
};

async function describe(host: HostRecord): Promise<{ text: string; ok: boolean }> {
  const { connection } = host;
  if (!connection) return { text: `host ${host.name}: has not answered yet\n`, ok: false };
  try {
    return await withAgent(connection, async (agent) => {
      const facts = await agent.host.getHost({});
      const integrity = await agent.host.getIntegrity({});
      const list = (await agent.groups.listGroups({})).groups;
      return { text: formatHost(host, facts, integrity) + formatGroups(list, connection), ok: facts.ready };
    });
  } catch (error) {
    return { text: `host ${host.name}: ${error instanceof Error ? error.message : String(error)}\n`, ok: false };
  }
}

/** One host's facts; exported for tests. */
export function formatHost(host: HostRecord, facts: GetHostResponse, integrity: GetIntegrityResponse): string {
  const on = (value: boolean | undefined) => (value ? "yes" : "no");
  const { root, ipe, selinux } = integrity;
  const verified = ({ signatureVerified }: { signatureVerified: boolean }) => signatureVerified;
  const rows: [string, string][] = [
    ["ready", facts.ready ? "yes" : `no: ${facts.readyMessage}`],
    ["agent", `${host.connection?.endpoint ?? ""}, version ${facts.agentVersion}`],
    ["accelerator", host.accelerator ?? ""],
    ["kernel", facts.kernelVersion],
    ["containerd", `${facts.containerdVersion}, runtime ${facts.runtimeVersion}`],
    ["certificate until", facts.certificateNotAfter ? isoOf(facts.certificateNotAfter) : ""],
    ["Secure Boot", on(integrity.secureBoot)],
    ["lockdown", integrity.lockdown],
    ["root hash", root ? `${root.rootHash} on ${root.mountPoint}` : "no verity device"],
    ["signature checked", `${on(root?.signatureVerified)}; unsigned ones refused: ${on(root?.signaturesRequired)}`],
    ["IPE", ipe?.activePolicy ? `${ipe.activePolicy}, ${ipe.enforcing ? "enforcing" : "audit"}` : "no policy"],
    ["mode", integrity.mode || "not named"],
    [
      "sealed layers",
      `${integrity.layers.length} open, ${integrity.layers.filter(verified).length} with a checked signature`,
    ],
    ["SELinux", selinux?.enabled ? `${selinux.enforcing ? "enforcing" : "permissive"}, ${selinux.policy}` : "disabled"],
  ];
  const lines = rows.map(([name, value]) => `  ${name.padEnd(18)}${printable(value)}\n`);
  return `host ${host.name} (${facts.hostId})\n${lines.join("")}`;
}

/** The table of groups; exported for tests. */
export function formatGroups(groups: Group[], { publishedPorts }: Connection): string {
  if (groups.length === 0) return "  no groups\n";
  const rows = groups.map(({ spec, status, generation }) => {
    const containers = status?.containers ?? [];
    const running = containers.filter(({ phase }) => phase === ContainerPhase.RUNNING).length;
    const restarts = containers.reduce((sum, { restartCount }) => sum + restartCount, 0);
    const endpoints = publishedPorts.filter((published) =>
      spec?.ports.some(({ port, protocol }) => port === published.port && Protocol[protocol] === published.protocol),
    );
    const observed = status?.observedGeneration ?? 0n;
    return [
      spec?.name ?? "",
      phaseName(status?.phase ?? GroupPhase.UNSPECIFIED) + (observed === generation ? "" : " (changing)"),
      `${running}/${spec?.containers.length ?? 0}`,
      String(restarts),
      endpoints.map(({ address, protocol }) => `${address}/${protocol}`).join(", ") || "-",
    ].map(printable);
  });
  return table(["GROUP", "STATE", "RUNNING", "RESTARTS", "ENDPOINTS"], rows, "  ");
}

function phaseName(phase: GroupPhase): string {
  const name = GroupPhase[phase];
  return name.charAt(0) + name.slice(1).toLowerCase();
}

function isoOf({ seconds }: { seconds: bigint }): string {
  return new Date(Number(seconds) * 1000).toISOString();
}
