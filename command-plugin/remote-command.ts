import type { Client, ClientChannel } from "ssh2";
import type { Operation } from "../provider/backends/index.js";
import { unknown, type Properties, type Resource } from "../provider/protocol/resource.js";
import { requireAcceptable, previousOutput, type Variables } from "./environment.js";
import { CommandOutput } from "./output.js";
import { handOver, type Handover } from "./remote-environment.js";
import { commandOutputs, common, newId } from "./schema.js";
import { withConnection, type Connection } from "./ssh.js";

type End = { code: number | null; signal?: string | null };

/** A command that runs in a channel of its own. */
interface Running {
  channel: ClientChannel;
  /** Resolves when the program has ended. */
  exited: Promise<End>;
  /** Resolves when its output is closed as well, with the exit status if the server sent one. */
  closed: Promise<End>;
}

/**
 * Starts a command. All listeners are set before the next packet is read, because a short command's end may be in the
 * same packet.
 */
function start(client: Client, script: string, env: Variables, output: CommandOutput): Promise<Running> {
  return new Promise((resolve, reject) =>
    client.exec(script, { env }, (error, channel) => {
      if (error) return reject(error);
      channel.on("data", (chunk: Buffer) => output.stdout.add(chunk));
      channel.stderr.on("data", (chunk: Buffer) => output.stderr.add(chunk));
      // A command need not read its input.
      channel.on("error", () => undefined);
      let end: End = { code: null };
      const exited = new Promise<End>((ended) =>
        channel.on("exit", (code: number | null, signal?: string | null) => ended((end = { code, signal }))),
      );
      const closed = new Promise<End>((ended) => channel.on("close", () => ended(end)));
      resolve({ channel, exited, closed });
    }),
  );
}

/** Runs a command in a channel of its own, and returns how it ended. */
async function inChannel(client: Client, { script, env, stdin }: Handover, output: CommandOutput): Promise<End> {
  const { channel, exited, closed } = await start(client, script, env, output);
  channel.end(stdin);
  const end = await Promise.race([exited, closed]);
  if (await output.drained(closed)) channel.close();
  return end;
}

async function runRemotely(
  op: Operation,
  command: string,
  inputs: Properties,
  previous: Variables = {},
): Promise<{ stdout: string; stderr: string }> {
  requireAcceptable({ ...inputs, command });
  const connection = inputs["connection"] as unknown as Connection;
  return withConnection(op, connection, async (client) => {
    const given = (inputs["environment"] as Variables | undefined) ?? {};
    const stdin = (inputs["stdin"] as string | undefined) ?? "";
    const quiet = new CommandOutput({ logging: "none" }, op);
    const handover = await handOver(op, connection.host, { command, given, previous, stdin }, async (script, env) => {
      const { code } = await inChannel(client, { script, env, stdin: "" }, quiet);
      return code === 0 ? quiet.properties().stdout : undefined;
    });
    const output = new CommandOutput(inputs, op);
    const ended = await inChannel(client, handover, output);
    op.signal.throwIfAborted();
    output.finish(command, ended, ` on ${connection.host}`);
    return output.properties();
  });
}

/** Runs a command for a caller that is no resource; returns standard output. */
export async function remoteShell(op: Operation, command: string, connection: Connection): Promise<string> {
  const inputs = { connection: connection as unknown as Properties, logging: "none" };
  return (await runRemotely(op, command, inputs)).stdout;
}

/** A command on another machine at the create, update and delete of a resource. */
export const remoteCommand: Resource<undefined> = {
  ...common("command:remote:Command"),
  derived: commandOutputs,

  async create(_context, { inputs, preview, op }) {
    if (preview) return { id: "", outputs: { ...inputs, stdout: unknown, stderr: unknown } };
    const command = inputs["create"] as string | undefined;
    const outputs = command === undefined ? { stdout: "", stderr: "" } : await runRemotely(op, command, inputs);
    return { id: newId(), outputs: { ...inputs, ...outputs } };
  },

  async update(_context, { oldOutputs, inputs, preview, op }) {
    if (preview) return { ...inputs, stdout: unknown, stderr: unknown };
    const command = (inputs["update"] ?? inputs["create"]) as string | undefined;
    const { stdout = "", stderr = "" } = oldOutputs;
    if (command === undefined) return { ...inputs, stdout, stderr };
    return { ...inputs, ...(await runRemotely(op, command, inputs, previousOutput(op, inputs, oldOutputs))) };
  },

  async delete(_context, { outputs, op }) {
    const command = outputs["delete"] as string | undefined;
    if (command !== undefined) await runRemotely(op, command, outputs, previousOutput(op, outputs, outputs));
  },
};
