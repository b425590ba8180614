/** What `palisade` understands, and how its arguments are read. */
import { consoleCommand } from "./console-command.js";
import { envCommand } from "./env-command.js";
import { flowsCommand } from "./flows-command.js";
import { keysCommand } from "./keys-command.js";
import { logsCommand } from "./logs-command.js";
import { patchToolsCommand } from "./patch-tools-command.js";
import { reapCommand } from "./reap-command.js";
import { recoverCommand } from "./recover-command.js";
import { metalCommand } from "./metal-command.js";
import { sealCommand } from "./seal-command.js";
import { statusCommand } from "./status-command.js";
import { vulndbCommand } from "./vulndb-command.js";

/** One command: its arguments as the user writes them, a line of help, and what it does; returns the exit code. */
export interface Command {
  usage: string;
  help: string;
  run(args: string[]): Promise<number>;
}

const commands: Record<string, Command> = {
  keys: keysCommand,
  env: envCommand,
  status: statusCommand,
  logs: logsCommand,
  flows: flowsCommand,
  console: consoleCommand,
  seal: sealCommand,
  reap: reapCommand,
  recover: recoverCommand,
  vulndb: vulndbCommand,
  "patch-tools": patchToolsCommand,
  metal: metalCommand,
};

/** Runs `palisade ARGS`; returns the exit code: 0 done, 1 failed, 2 not understood. */
export async function run(args: string[]): Promise<number> {
  const [name, ...rest] = args;
  if (name === undefined || name === "help" || name === "--help" || name === "-h") {
    process.stdout.write(usage());
    return name === undefined ? 2 : 0;
  }
  const command = Object.hasOwn(commands, name) ? commands[name] : undefined;
  if (!command) {
    process.stderr.write(`palisade: '${name}' is no command.\n\n${usage()}`);
    return 2;
  }
  try {
    return await command.run(rest);
  } catch (error) {
    if (!(error as NodeJS.ErrnoException).code?.startsWith("ERR_PARSE_ARGS_")) throw error;
    process.stderr.write(`palisade ${name}: ${(error as Error).message}\nUsage: palisade ${command.usage}\n`);
    return 2;
  }
}

function usage(): string {
  const width = Math.max(...Object.values(commands).map(({ usage }) => usage.length));
  const lines = Object.values(commands).map(({ usage, help }) => `  palisade ${usage.padEnd(width)}  ${help}`);
  return `Usage:\n${lines.join("\n")}\n`;
}
