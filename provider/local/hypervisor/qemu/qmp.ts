/** A small client of the QEMU Machine Protocol: https://www.qemu.org/docs/master/interop/qmp-spec.html */
import type { Socket } from "node:net";
import { createInterface } from "node:readline";
import * as v from "valibot";
import { decode, object } from "../../../../shared/decode.js";
import { connectUnix } from "./unix-socket.js";

/** QEMU does not answer: it hangs or is ending. */
export class QmpTimeoutError extends Error {
  override readonly name = "QmpTimeoutError";
}

const messageSchema = object({
  QMP: v.optional(v.unknown()),
  id: v.optional(v.number()),
  return: v.optional(v.unknown()),
  error: v.optional(object({ class: v.string(), desc: v.string() })),
  event: v.optional(v.string()),
});
type Message = v.InferOutput<typeof messageSchema>;

/**
 * One session with a QEMU. Its monitor serves one client at a time, so sessions are short; each answer is waited for at
 * most `timeout` milliseconds, because an emulated machine may hang.
 */
export class Qmp {
  private nextId = 1;
  private readonly waiting = new Map<number, { resolve: (value: unknown) => void; reject: (error: Error) => void }>();
  private greeted: (() => void) | undefined;

  private constructor(
    private readonly socket: Socket,
    private readonly path: string,
    private readonly timeout: number,
  ) {
    socket.on("error", () => undefined);
    socket.on("close", () => this.fail(new QmpTimeoutError(`${path}: QEMU closed the connection`)));
    createInterface({ input: socket }).on("line", (line) => this.receive(line));
  }

  /** @throws QmpTimeoutError when QEMU does not greet in time. */
  static async connect(path: string, timeout = 10_000, signal?: AbortSignal): Promise<Qmp> {
    const client = new Qmp(await connectUnix(path, timeout, signal), path, timeout);
    try {
      await client.within(new Promise<void>((resolve) => (client.greeted = resolve)), "its greeting");
      await client.execute("qmp_capabilities");
      return client;
    } catch (error) {
      client.close();
      throw error;
    }
  }

  /** Runs `work` in a session of its own. */
  static async session<T>(path: string, work: (qmp: Qmp) => Promise<T>, timeout = 10_000): Promise<T> {
    const client = await Qmp.connect(path, timeout);
    try {
      return await work(client);
    } finally {
      client.close();
    }
  }

  /** Executes a command and returns its answer. */
  async execute<T = unknown>(command: string, args?: Record<string, unknown>): Promise<T> {
    const id = this.nextId++;
    const answer = new Promise<unknown>((resolve, reject) => this.waiting.set(id, { resolve, reject }));
    this.socket.write(`${JSON.stringify({ execute: command, arguments: args, id })}\n`);
    try {
      return (await this.within(answer, `the answer to ${command}`)) as T;
    } finally {
      this.waiting.delete(id);
    }
  }

  /** Executes a command of the human monitor and returns what it prints. */
  async human(commandLine: string): Promise<string> {
    return this.execute<string>("human-monitor-command", { "command-line": commandLine });
  }

  close(): void {
    this.socket.destroy();
  }

  private receive(line: string): void {
    let message: Message;
    try {
      message = decode(messageSchema, line, "QEMU");
    } catch {
      return;
    }
    if (message.QMP !== undefined) this.greeted?.();
    const waiting = message.id === undefined ? undefined : this.waiting.get(message.id);
    if (!waiting) return;
    if (message.error) waiting.reject(new Error(`QEMU: ${message.error.desc} (${message.error.class})`));
    else waiting.resolve(message.return);
  }

  private fail(error: Error): void {
    for (const { reject } of this.waiting.values()) reject(error);
    this.waiting.clear();
  }

  private async within<T>(promise: Promise<T>, what: string): Promise<T> {
    let timer: NodeJS.Timeout | undefined;
    try {
      return await Promise.race([
        promise,
        new Promise<never>((_resolve, reject) => {
          timer = setTimeout(
            () => reject(new QmpTimeoutError(`${this.path}: QEMU gave no answer within ${this.timeout} ms (${what})`)),
            this.timeout,
          );
        }),
      ]);
    } finally {
      clearTimeout(timer);
    }
  }
}
