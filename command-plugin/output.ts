/** Output of a command while it runs: collected as a whole, logged by line, its last lines kept for the error. */
import { StringDecoder } from "node:string_decoder";
import type { Operation } from "../provider/backends/index.js";
import { shorten } from "../shared/text.js";
import type { LocalLogging } from "./inputs.js";
import { withoutLineEnd } from "./schema.js";

const lastLines = 20;
/** After the program's end, output that is silent for this long is complete. */
const silenceMilliseconds = 1_000;
/** Output that continues after this is not waited for. */
const longestDrainMilliseconds = 10_000;
const pollMilliseconds = 50;

/** Collects one stream. */
class Stream {
  private readonly decoder = new StringDecoder("utf8");
  private rest = "";
  text = "";
  /** Time of the last output, in milliseconds. */
  lastAt = 0;

  constructor(private readonly onLine: (line: string) => void) {}

  add(chunk: Buffer): void {
    this.lastAt = Date.now();
    this.addText(this.decoder.write(chunk));
  }

  private addText(text: string): void {
    this.text += text;
    const lines = (this.rest + text).split("\n");
    this.rest = lines.pop()!;
    lines.forEach(this.onLine);
  }

  end(): void {
    this.addText(this.decoder.end());
    if (this.rest) this.onLine(this.rest);
    this.rest = "";
  }
}

export class CommandOutput {
  readonly stdout: Stream;
  readonly stderr: Stream;
  private readonly tail: string[] = [];

  /** @param logging the streams that the user sees. Default: both. */
  constructor(
    private readonly op: Operation,
    logging: LocalLogging = "stdoutAndStderr",
  ) {
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

  /**
   * Resolves when the streams are closed, or some time after the program's own end: processes that it started in the
   * background may keep them open as long as they run.
   * @returns whether they were left open
   */
  async drained(closed: Promise<unknown>): Promise<boolean> {
    const endedAt = Date.now();
    let timer: NodeJS.Timeout | undefined;
    const silent = new Promise<boolean>((resolve) => {
      let heardAt = 0;
      let silentPolls = 0;
      // Counted in polls and not by the clock: between two polls the event loop reads all output, even on a busy
      // machine.
      timer = setInterval(() => {
        const lastAt = Math.max(this.stdout.lastAt, this.stderr.lastAt);
        silentPolls = lastAt === heardAt ? silentPolls + 1 : 0;
        heardAt = lastAt;
        const isSilent = silentPolls * pollMilliseconds >= silenceMilliseconds;
        if (isSilent || Date.now() - endedAt >= longestDrainMilliseconds) resolve(true);
      }, pollMilliseconds);
    });
    const leftOpen = await Promise.race([closed.then(() => false), silent]);
    clearInterval(timer);
    if (leftOpen) {
      this.op.log(
        "info",
        "the command has ended; what it started in the background still holds its output, which is not read any longer",
      );
    }
    return leftOpen;
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
    const first = shorten(command.trim().split("\n")[0]!, 120);
    throw new Error(`${how}${where} of the command \`${first}\`; its last lines:\n${this.tail.join("\n")}`);
  }
}
