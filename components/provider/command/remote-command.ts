import type { Operation } from "../backends.js";
import { unknown, type Properties, type Resource } from "../resource.js";
import { CommandOutput } from "./output.js";
import { common, newId, previousOutput } from "./schema.js";
import { withConnection, type Connection } from "./ssh.js";

async function runRemotely(
  op: Operation,
  command: string,
  inputs: Properties,
  environment: Record<string, string> = {},
): Promise<{ stdout: string; stderr: string }> {
  const connection = inputs["connection"] as unknown as Connection;
  return withConnection(op, connection, async (client) => {
    const output = new CommandOutput(inputs, op);
    const env = { ...(inputs["environment"] as Record<string, string> | undefined), ...environment };
    const ended = await new Promise<{ code: number | null; signal?: string | null }>((resolve, reject) => {
      client.exec(command, { env }, (error, channel) => {
        if (error) return reject(error);
        let end: { code: number | null; signal?: string | null } = { code: null };
        channel.on("data", (chunk: Buffer) => output.stdout.add(chunk));
        channel.stderr.on("data", (chunk: Buffer) => output.stderr.add(chunk));
        channel.on("exit", (code: number | null, signal?: string | null) => (end = { code, signal }));
        channel.on("close", () => resolve(end));
        channel.end((inputs["stdin"] as string | undefined) ?? "");
      });
    });
    op.signal.throwIfAborted();
    output.finish(command, ended, ` on ${connection.host}`);
    return output.properties();
  });
}

/** The same for a caller that is no resource; returns standard output. */
export async function remoteShell(op: Operation, command: string, connection: Connection): Promise<string> {
  const inputs = { connection: connection as unknown as Properties, logging: "none" };
  return (await runRemotely(op, command, inputs)).stdout;
}

/** A command of another machine in the life of a resource. */
export const remoteCommand: Resource<undefined> = {
  ...common("command:remote:Command"),

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
    return { ...inputs, ...(await runRemotely(op, command, inputs, previousOutput(inputs, oldOutputs))) };
  },

  async delete(_context, { outputs, op }) {
    const command = outputs["delete"] as string | undefined;
    if (command !== undefined) await runRemotely(op, command, outputs, previousOutput(outputs, outputs));
  },
};
