/** `palisade logs`: what a group's containers print. */
import { parseArgs } from "node:util";
import { type Agent, withAgent } from "./agent.js";
import type { Command } from "./commands.js";
import { readStack, type StackState } from "./stack-state.js";
import { printable } from "./table.js";

export const logsCommand: Command = {
  usage: "logs GROUP [CONTAINER] [--follow] [--tail LINES] [--stack STACK]",
  help: "output of a group's containers",
  async run(args) {
    const { values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: {
        follow: { type: "boolean", short: "f", default: false },
        tail: { type: "string" },
        stack: { type: "string" },
      },
    });
    const [name, container] = positionals;
    if (name === undefined || positionals.length > 2) {
      process.stderr.write("palisade logs: expected the name of a group, e.g. palisade logs web\n");
      return 2;
    }
    const tailLines = lineCount(values.tail);
    const group = findGroup(await readStack(values.stack), name);
    await withAgent(group.connection, async (agent) => {
      const containers = container === undefined ? await containersOf(agent, name) : [container];
      const print = async (one: string) => {
        const prefix = containers.length > 1 ? `[${one}] ` : "";
        const request = { group: name, container: one, follow: values.follow, tailLines };
        // A followed log lasts as long as the reader wants: no time-out.
        const stream = agent.groups.getLogs(request, { timeoutMs: values.follow ? 0 : 60_000 });
        const writers = { stdout: lineWriter(process.stdout, prefix), stderr: lineWriter(process.stderr, prefix) };
        for await (const { data, stream: source } of stream)
          writers[source === "stderr" ? "stderr" : "stdout"].add(data);
        writers.stdout.end();
        writers.stderr.end();
      };
      if (values.follow) await Promise.all(containers.map(print));
      else for (const one of containers) await print(one);
    });
    return 0;
  },
};

/** `--tail` as a number; 0 means everything. */
export function lineCount(text: string | undefined): number {
  if (text === undefined) return 0;
  const count = Number(text);
  if (!/^\d+$/.test(text) || count < 1 || count > 1_000_000) {
    throw new Error(`--tail: '${text}' must be a whole number from 1 to 1000000`);
  }
  return count;
}

function findGroup(state: StackState, name: string) {
  const group = state.groups.find((one) => one.name === name);
  if (group) return group;
  const names = state.groups.map((one) => one.name).join(", ") || "none";
  throw new Error(`GROUP: '${name}' is no group of the stack; its groups: ${names}`);
}

async function containersOf(agent: Agent, group: string): Promise<string[]> {
  const answer = await agent.groups.getGroup({ name: group });
  return answer.group?.spec?.containers.map(({ name }) => name) ?? [];
}

/** Writes whole lines, safe for a terminal. */
function lineWriter(output: NodeJS.WritableStream, prefix: string) {
  const decoder = new TextDecoder();
  let rest = "";
  const write = (line: string) => output.write(`${prefix}${printable(line)}\n`);
  return {
    add(data: Uint8Array) {
      const lines = (rest + decoder.decode(data, { stream: true })).split("\n");
      rest = lines.pop() ?? "";
      lines.forEach(write);
    },
    end() {
      if (rest !== "") write(rest);
    },
  };
}
