/** `palisade console`: the serial console of a host on this machine. */
import { open } from "node:fs/promises";
import { setTimeout as sleep } from "node:timers/promises";
import { type OutputOptions, writeDocument, writeLine } from "./output.js";
import { findHosts, type HostRecord, readStack } from "./stack-state.js";
import { printable } from "./table.js";

/** Options of `palisade console`. */
export interface ConsoleOptions extends OutputOptions {
  follow?: boolean;
  tail?: number;
  path?: boolean;
  stack?: string;
}

const defaultLines = 100;

/** JSON: a line for each line of the console, `{ host, line }`; with `path`, `{ host, path }`. */
export async function showConsole(name: string | undefined, options: ConsoleOptions): Promise<number> {
  const { host, path } = consoleOf((await readStack(options.stack)).hosts, name);
  const isJson = options.output === "json";
  if (options.path) {
    if (isJson) writeDocument({ host, path });
    else process.stdout.write(`${path}\n`);
    return 0;
  }
  await show(path, options, isJson ? jsonPrinter(host) : (text) => void process.stdout.write(printable(text)));
  return 0;
}

function consoleOf(hosts: HostRecord[], name: string | undefined): { host: string; path: string } {
  const withConsole = hosts.filter(({ serialLog }) => serialLog);
  const found = name === undefined ? withConsole : findHosts(hosts, name, "HOST");
  if (found.length > 1 || (found.length === 0 && hosts.length > 1)) {
    const names = (found.length > 1 ? found : hosts).map(({ name: one, connection }) =>
      found.filter((other) => other.name === one).length > 1 ? (connection?.hostId ?? one) : one,
    );
    throw new Error(`HOST: name one of the stack's hosts: ${names.join(", ")}`);
  }
  const host = found[0] ?? hosts[0];
  if (!host) throw new Error("the stack has no hosts");
  if (host.serialLog) return { host: host.name, path: host.serialLog };
  const elsewhere =
    host.kind === "bare-metal"
      ? "it is a machine of its own: look at its screen or its management controller"
      : undefined;
  throw new Error(`host ${host.name} has no serial console on this machine${elsewhere ? `; ${elsewhere}` : ""}`);
}

type Printer = (text: string, isLast?: boolean) => void;

function jsonPrinter(host: string): Printer {
  let rest = "";
  return (text, isLast = false) => {
    const lines = (rest + text).split("\n");
    rest = lines.pop() ?? "";
    if (isLast && rest !== "") lines.push(rest);
    for (const line of lines) writeLine({ host, line: line.replace(/\r$/, "") });
  };
}

async function show(
  file: string,
  { tail = defaultLines, follow = false }: ConsoleOptions,
  print: Printer,
): Promise<void> {
  const handle = await open(file, "r");
  try {
    const decoder = new TextDecoder();
    const text = decoder.decode(await handle.readFile(), { stream: true });
    print(lastLines(text, tail), !follow);
    // The file only grows, so the next read continues where this one stopped.
    while (follow) {
      await sleep(300);
      const more = await handle.readFile();
      if (more.length > 0) print(decoder.decode(more, { stream: true }));
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
