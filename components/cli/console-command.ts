/** `palisade console`: the serial console of a host on this machine. */
import { open } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { parseArgs } from "node:util";
import type { Command } from "./commands.js";
import { lineCount } from "./logs-command.js";
import { type HostRecord, readStack } from "./stack-state.js";
import { printable } from "./table.js";

const defaultLines = 100;

export const consoleCommand: Command = {
  usage: "console [HOST] [--follow] [--tail LINES] [--path] [--stack STACK]",
  help: "serial console of a host, or the path of its file",
  async run(args) {
    const { values, positionals } = parseArgs({
      args,
      allowPositionals: true,
      options: {
        follow: { type: "boolean", short: "f", default: false },
        tail: { type: "string" },
        path: { type: "boolean", default: false },
        stack: { type: "string" },
      },
    });
    if (positionals.length > 1) {
      process.stderr.write("palisade console: expected the name of one host at most\n");
      return 2;
    }
    const lines = lineCount(values.tail) || defaultLines;
    const file = serialLogOf((await readStack(values.stack)).hosts, positionals[0]);
    if (values.path) process.stdout.write(`${file}\n`);
    else await show(file, lines, values.follow);
    return 0;
  },
};

function serialLogOf(hosts: HostRecord[], name: string | undefined): string {
  const names = hosts.map((host) => host.name).join(", ") || "none";
  if (name === undefined && hosts.length !== 1) throw new Error(`HOST: name one of the stack's hosts: ${names}`);
  const host = name === undefined ? hosts[0] : hosts.find((one) => one.name === name);
  if (!host) throw new Error(`HOST: '${name}' is no host of the stack; its hosts: ${names}`);
  if (!host.serialLog) throw new Error(`host ${host.name} has no serial console on this machine`);
  return host.serialLog;
}

async function show(file: string, lines: number, follow: boolean): Promise<void> {
  const handle = await open(file, "r");
  try {
    const decoder = new TextDecoder();
    const text = decoder.decode(await handle.readFile(), { stream: true });
    process.stdout.write(printable(lastLines(text, lines)));
    // The file only ever grows; where the reading stopped, the next one goes on.
    while (follow) {
      await sleep(300);
      const more = await handle.readFile();
      if (more.length > 0) process.stdout.write(printable(decoder.decode(more, { stream: true })));
    }
  } finally {
    await handle.close();
  }
}

/** The last lines of a text. */
export function lastLines(text: string, count: number): string {
  const ended = text.endsWith("\n");
  const lines = (ended ? text.slice(0, -1) : text).split("\n").slice(-count);
  return lines.join("\n") + (ended ? "\n" : "");
}
