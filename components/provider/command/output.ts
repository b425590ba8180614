/** What a command says while it runs: kept whole, logged by line, its last words for the error. */
import { StringDecoder } from "node:string_decoder";
import type { Operation } from "../backends.js";
import type { Properties } from "../resource.js";
import { withoutLineEnd } from "./schema.js";

const lastLines = 20;

/** Gathers one stream. */
class Stream {
  private readonly decoder = new StringDecoder("utf8");
  private rest = "";
  text = "";

  constructor(private readonly onLine: (line: string) => void) {}

  add(chunk: Buffer): void {
    const text = this.decoder.write(chunk);
    this.text += text;
    const lines = (this.rest + text).split("\n");
    this.rest = lines.pop()!;
    lines.forEach(this.onLine);
  }

  end(): void {
    if (this.rest) this.onLine(this.rest);
    this.rest = "";
  }
}

export class CommandOutput {
  readonly stdout: Stream;
  readonly stderr: Stream;
  private readonly tail: string[] = [];

  /** @param inputs - `logging` says what of it reaches the user: stdout, stderr, stdoutAndStderr (the default) or none */
  constructor(inputs: Properties, op: Operation) {
    const logging = (inputs["logging"] as string | undefined) ?? "stdoutAndStderr";
    const stream = (name: "stdout" | "stderr") => {
      const logged = logging === name || logging === "stdoutAndStderr";
      return new Stream((line) => {
        this.tail.push(line);
        if (this.tail.length > lastLines) this.tail.shift();
        if (logged) op.log("info", line);
      });
    };
    this.stdout = stream("stdout");
    this.stderr = stream("stderr");
  }

  /** The outputs `stdout` and `stderr`. */
  properties(): { stdout: string; stderr: string } {
    return { stdout: withoutLineEnd(this.stdout.text), stderr: withoutLineEnd(this.stderr.text) };
  }

  /** @throws Error with the command's last lines, unless it ended with 0 */
  finish(command: string, ended: { code: number | null; signal?: string | null }, where: string): void {
    this.stdout.end();
    this.stderr.end();
    if (ended.code === 0) return;
    const how = ended.code === null ? `signal ${ended.signal ?? "unknown"}` : `exit status ${ended.code}`;
    const first = command.trim().split("\n")[0]!.slice(0, 120);
    throw new Error(`${how}${where} of the command \`${first}\`; its last lines:\n${this.tail.join("\n")}`);
  }
}
