import type { Client, ClientChannel } from "ssh2";
import type { Operation } from "../provider/backends/index.js";
import { unknown, type Resource } from "../provider/protocol/resource.js";
import { requireAcceptable, previousOutput, type Commands, type Variables } from "./environment.js";
import { CommandOutput } from "./output.js";
import type { RemoteCommandInputs } from "./inputs.js";
import { handOver, type Handover } from "./remote-environment.js";
import { commandOutputs, common, decoder, newId } from "./schema.js";
import { withConnection, type Connection } from "./ssh.js";

const type = "command:remote:Command";

/** How a command runs on another machine. */
type RemoteProcess = Pick<RemoteCommandInputs, "connection" | "environment" | "stdin" | "logging"> & Commands;

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
  inputs: RemoteProcess,
  previous: Variables = {},
): Promise<{ stdout: string; stderr: string }> {
  const { connection, environment: given = {}, stdin = "", logging, create, update, delete: atDelete } = inputs;
  requireAcceptable({ command, create, update, delete: atDelete, environment: given });
  return withConnection(op, connection, async (client) => {
    const quiet = new CommandOutput(op, "none");
    const handover = await handOver(op, connection.host, { command, given, previous, stdin }, async (script, env) => {
      const { code } = await inChannel(client, { script, env, stdin: "" }, quiet);
      return code === 0 ? quiet.properties().stdout : undefined;
    });
    const output = new CommandOutput(op, logging);
    const ended = await inChannel(client, handover, output);
    op.signal.throwIfAborted();
    output.finish(command, ended, ` on ${connection.host}`);
    return output.properties();
  });
}

/** Runs a command for a caller that is no resource; returns standard output. */
export async function remoteShell(op: Operation, command: string, connection: Connection): Promise<string> {
  return (await runRemotely(op, command, { connection, logging: "none" })).stdout;
}

/** A command on another machine at the create, update and delete of a resource. */
export const remoteCommand: Resource<undefined> = {
  ...common(type),
  derived: commandOutputs,

  async create(_context, { inputs, preview, op }) {
    if (preview) return { id: "", outputs: { ...inputs, stdout: unknown, stderr: unknown } };
    const known = decoder.decode(type, inputs);
    const command = known.create;
    const outputs = command === undefined ? { stdout: "", stderr: "" } : await runRemotely(op, command, known);
    return { id: newId(), outputs: { ...inputs, ...outputs } };
  },

  async update(_context, { oldOutputs, inputs, preview, op }) {
    if (preview) return { ...inputs, stdout: unknown, stderr: unknown };
    const known = decoder.decode(type, inputs);
    const command = known.update ?? known.create;
    const { stdout = "", stderr = "" } = oldOutputs;
    if (command === undefined) return { ...inputs, stdout, stderr };
    return { ...inputs, ...(await runRemotely(op, command, known, previousOutput(op, known, oldOutputs))) };
  },

  async delete(_context, { outputs, op }) {
    const known = decoder.decode(type, outputs);
    if (known.delete !== undefined) await runRemotely(op, known.delete, known, previousOutput(op, known, outputs));
  },
};
