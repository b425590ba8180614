/** `palisade logs`: what a group's containers print. */
import { type Agent, withAgent } from "./agent.js";
import { type OutputOptions, writeLine } from "./output.js";
import { findHosts, type GroupRecord, readStack, type StackState } from "./stack-state.js";
import { printable } from "./table.js";

/** Options of `palisade logs`. */
export interface LogsOptions extends OutputOptions {
  follow?: boolean;
  tail?: number;
  host?: string;
  stack?: string;
}

/** JSON: a line for each line of output, `{ group, container, stream, line }`. */
export async function logs(name: string, container: string | undefined, options: LogsOptions): Promise<number> {
  const { follow = false, tail: tailLines = 0, output } = options;
  const group = findGroup(await readStack(options.stack), name, options.host);
  await withAgent(group.connection, async (agent) => {
    const present = await containersOf(agent, name);
    if (container !== undefined && !present.includes(container)) {
      const names = present.join(", ") || "none";
      throw new Error(`CONTAINER: '${container}' is no container of the group ${name}; its containers: ${names}`);
    }
    const containers = container === undefined ? present : [container];
    const print = async (one: string) => {
      const prefix = containers.length > 1 ? `[${one}] ` : "";
      const writer = (stream: "stdout" | "stderr") =>
        lineWriter(
          output === "json"
            ? (line) => writeLine({ group: name, container: one, stream, line })
            : (line) => void process[stream].write(`${prefix}${printable(line)}\n`),
        );
      const writers = { stdout: writer("stdout"), stderr: writer("stderr") };
      const request = { group: name, container: one, follow, tailLines };
      // No time-out: a log is followed for as long as the reader wants.
      const stream = agent.groups.getLogs(request, { timeoutMs: follow ? 0 : 60_000 });
      for await (const { data, stream: source } of stream) writers[source === "stderr" ? "stderr" : "stdout"].add(data);
      writers.stdout.end();
      writers.stderr.end();
    };
    if (follow) await Promise.all(containers.map(print));
    else for (const one of containers) await print(one);
  });
  return 0;
}

function findGroup({ groups, hosts }: StackState, name: string, host: string | undefined): GroupRecord {
  const hostNames = (group: GroupRecord) =>
    hosts.filter(({ connection }) => connection?.hostId === group.hostId).map((one) => one.name);
  const hostIds =
    host === undefined ? undefined : findHosts(hosts, host, "--host").map(({ connection }) => connection?.hostId);
  const candidates = groups.filter(({ hostId }) => hostIds === undefined || hostIds.includes(hostId));
  const found = candidates.filter((one) => one.name === name);
  if (found.length === 1) return found[0]!;
  if (found.length > 1) {
    const places = found.flatMap(hostNames).join(", ");
    throw new Error(`GROUP: '${name}' is on several hosts: ${places}; name one with --host`);
  }
  const names = candidates.map((one) => one.name).join(", ") || "none";
  throw new Error(`GROUP: '${name}' is no group of the stack; its groups: ${names}`);
}

async function containersOf(agent: Agent, group: string): Promise<string[]> {
  const answer = await agent.groups.getGroup({ name: group });
  return answer.group?.spec?.containers.map(({ name }) => name) ?? [];
}

/** Gathers whole lines. */
function lineWriter(write: (line: string) => void) {
  const decoder = new TextDecoder();
  let rest = "";
  return {
    add(data: Uint8Array) {
      const lines = (rest + decoder.decode(data, { stream: true })).split("\n");
      rest = lines.pop() ?? "";
      lines.forEach(write);
    },
    end() {
      rest += decoder.decode();
      if (rest !== "") write(rest);
    },
  };
}
