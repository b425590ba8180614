/** Short-lived programs: run without a shell, bounded and cancellable; errors carry the last lines of their output. */
import { spawn } from "node:child_process";
import { createWriteStream } from "node:fs";
import { createInterface } from "node:readline";
import type { Readable, Writable } from "node:stream";
import { DeadlineExceededError } from "./time.js";

export interface CommandOptions {
  signal?: AbortSignal;
  directory?: string;
  /** Added to PATH, HOME and locale; nothing else is inherited. */
  environment?: Record<string, string>;
  /** Called with each line of standard output and error. */
  onLine?: (line: string) => void;
  /** Gets standard output and error. */
  logFile?: string;
  /** Ends the program by SIGTERM when this process ends in any way: for programs that run long. */
  diesWithUs?: boolean;
  /**
   * Standard input; default none. It is read to its end even when the program stops reading earlier, so that a check of
   * the stream sees all of it. Its error ends the program, and the call rejects with it.
   */
  input?: AsyncIterable<Buffer>;
}

/** A program ended with an exit code other than 0. */
export class CommandError extends Error {
  override readonly name = "CommandError";
  constructor(
    message: string,
    /** The last lines of its output. */
    readonly lastLines: string[],
  ) {
    super(message);
  }
}

const keptLines = 20;

/**
 * Runs a program and returns its standard output.
 *
 * When the signal is aborted, the program's whole process group gets SIGTERM, after 5 s SIGKILL, and the call rejects
 * with the signal's reason once it is gone.
 *
 * @throws CommandError with the last lines of its output and where the rest is; DeadlineExceededError with the same
 * when its time is over.
 */
export async function run(file: string, args: string[], options: CommandOptions = {}): Promise<string> {
  options.signal?.throwIfAborted();
  const log = options.logFile === undefined ? undefined : createWriteStream(options.logFile, { mode: 0o600 });
  const [program, programArguments] = options.diesWithUs
    ? ["setpriv", ["--pdeathsig", "TERM", "--", file, ...args]]
    : [file, args];
  const child = spawn(program, programArguments, {
    cwd: options.directory,
    detached: true,
    stdio: [options.input === undefined ? "ignore" : "pipe", "pipe", "pipe"],
    env: {
      PATH: `${process.env["PATH"] ?? ""}:/usr/sbin:/usr/bin:/sbin:/bin`,
      HOME: process.env["HOME"] ?? "/",
      LANG: "C.UTF-8",
      ...options.environment,
    },
  });
  const toGroup = (signal: NodeJS.Signals) => {
    try {
      if (child.pid !== undefined) process.kill(-child.pid, signal);
    } catch {
      // The group is gone already.
    }
  };
  let kill: NodeJS.Timeout | undefined;
  const aborted = () => {
    toGroup("SIGTERM");
    kill = setTimeout(() => toGroup("SIGKILL"), 5000);
  };
  options.signal?.addEventListener("abort", aborted, { once: true });

  let output = "";
  const lastLines: string[] = [];
  const { stdin, stdout, stderr } = child as { stdin: Writable | null; stdout: Readable; stderr: Readable };
  stdout.on("data", (data: Buffer) => (output += data.toString()));
  for (const stream of [stdout, stderr]) {
    if (log) stream.on("data", (data: Buffer) => log.write(data));
    createInterface({ input: stream }).on("line", (line) => {
      lastLines.push(line);
      if (lastLines.length > keptLines) lastLines.shift();
      options.onLine?.(line);
    });
  }
  let inputError: Error | undefined;
  const fed =
    options.input && stdin
      ? feed(options.input, stdin, () => child.exitCode !== null && child.exitCode !== 0).catch((error: Error) => {
          inputError = error;
          toGroup("SIGTERM");
        })
      : undefined;
  try {
    const ended = await new Promise<string | undefined>((resolve, reject) => {
      child.once("error", (error) => reject(new Error(`${file} cannot be run: ${error.message}; is it installed?`)));
      child.once("close", (code, signal) =>
        resolve(code === 0 ? undefined : signal === null ? `exit code ${code}` : `signal ${signal}`),
      );
    });
    const rest = options.logFile === undefined ? "" : `\nThe whole log: ${options.logFile}`;
    const words = `its last lines:\n${lastLines.join("\n")}${rest}`;
    if (options.signal?.aborted) {
      const reason = options.signal.reason as Error;
      if (!(reason instanceof DeadlineExceededError) || lastLines.length === 0) throw reason;
      throw new DeadlineExceededError(`${reason.message}\n${file} was at work; ${words}`, { cause: reason });
    }
    await fed;
    if (inputError !== undefined) throw inputError;
    if (ended === undefined) return output;
    throw new CommandError(`${file} ended with ${ended}; ${words}`, lastLines);
  } finally {
    clearTimeout(kill);
    options.signal?.removeEventListener("abort", aborted);
    log?.end();
  }
}

/** Hands `input` to a program and reads on when it takes no more, until it has failed. */
async function feed(input: AsyncIterable<Buffer>, stdin: Writable, hasFailed: () => boolean): Promise<void> {
  let isOpen = true;
  const closed = new Promise<void>((resolve) => {
    stdin.once("close", () => {
      isOpen = false;
      resolve();
    });
  });
  // The message of the program is the better one.
  stdin.on("error", () => undefined);
  for await (const chunk of input) {
    if (hasFailed()) return;
    if (isOpen && !stdin.write(chunk)) {
      await Promise.race([new Promise((resolve) => stdin.once("drain", resolve)), closed]);
    }
  }
  stdin.end();
}
