/** The tests' side of the probe in a host (test/support/probe): what runs there runs as root, without a shell. */
import { createInterface } from "node:readline";
import type { Socket } from "node:net";
import path from "node:path";
import { Qmp } from "../../../provider/local/hypervisor/qemu/qmp.js";
import { connectUnix } from "../../../provider/local/hypervisor/qemu/unix-socket.js";
import type { Environment } from "./environment.js";

/** What came of a request; `error` is set when nothing could be run or done, with the system's words. */
export interface ProbeResult {
  exitCode: number;
  stdout: string;
  stderr: string;
  error?: string;
}

const portName = "palisade.probe";

/** Longer than what the probe gives a command (commandTimeout in test/support/probe/main.go). */
const answerTimeoutMs = 330_000;

/** One connection to the probe of a running machine; a restarted QEMU needs a new one. */
export class Probe {
  private nextId = 1;
  /** Cursor of the last line of the kernel that `denials` has read. */
  private seenUntil: string | undefined;
  private readonly waiting = new Map<number, (result: ProbeResult) => void>();

  private constructor(private readonly socket: Socket) {
    createInterface({ input: socket }).on("line", (line) => {
      const answer = JSON.parse(line) as ProbeResult & { id: number };
      this.waiting.get(answer.id)?.(answer);
      this.waiting.delete(answer.id);
    });
  }

  /** Plugs the port into the machine of a stack and connects to it. */
  static async attach(environment: Environment): Promise<Probe> {
    const folder = environment.folder("virtual-machines");
    const file = path.join(folder, "probe.sock");
    await Qmp.session(path.join(folder, "qmp.sock"), async (qmp) => {
      const ports = await qmp.human("info qtree");
      if (ports.includes(portName)) return;
      const address = { type: "unix", data: { path: file } };
      await qmp.execute("chardev-add", {
        id: "probe",
        backend: { type: "socket", data: { addr: address, server: true, wait: false } },
      });
      await qmp.execute("device_add", { driver: "virtserialport", id: "probe", chardev: "probe", name: portName });
    });
    return new Probe(await connectUnix(file, 10_000));
  }

  /** Runs a program with its arguments. */
  run(...command: string[]): Promise<ProbeResult> {
    return this.request({ command });
  }

  /** Runs a program with variables added to its environment. */
  runWith(environment: Record<string, string>, ...command: string[]): Promise<ProbeResult> {
    return this.request({ command, environment });
  }

  /** Content of a file. Throws when it cannot be read. */
  async read(file: string): Promise<string> {
    const { stdout, error } = await this.request({ read: file });
    if (error !== undefined) throw new Error(`${file}: ${error}`);
    return stdout;
  }

  /** Writes a file, mode 0755. */
  write(file: string, content: string): Promise<ProbeResult> {
    return this.request({ write: file, stdin: content });
  }

  /** Writes a file of any bytes. */
  async place(file: string, content: Buffer): Promise<void> {
    const { error } = await this.request({ write: file, stdin: content.toString("base64"), binary: true });
    if (error !== undefined) throw new Error(`${file}: ${error}`);
  }

  /**
   * What the attacker of test/support/probe/attacks.go gets: `done`, or the name of the error with which the kernel
   * refused.
   */
  async attack(...attack: (string | number)[]): Promise<string> {
    const { exitCode, stdout, stderr, error } = await this.run(
      "/usr/libexec/palisade-probe",
      "do",
      ...attack.map(String),
    );
    if (exitCode !== 0 && exitCode !== 1) throw new Error(`${attack.join(" ")}: ${error ?? stderr}`);
    return stdout.trim();
  }

  /** The journal's lines that journalctl selects by these arguments, oldest first, without times. */
  async journal(...selection: string[]): Promise<string[]> {
    // Otherwise lines that a program has written may still be on their way into the journal.
    await this.output("/usr/bin/journalctl", "--sync");
    const output = await this.output("/usr/bin/journalctl", "-o", "cat", "--no-pager", ...selection);
    return output.split("\n").slice(0, -1);
  }

  /** Audit records of the integrity policy (type 1420) since the last call that mention the text. */
  async denials(text: string): Promise<string[]> {
    // A cursor, because journald removes its oldest lines when there are too many; their number says nothing then.
    const since = this.seenUntil === undefined ? [] : [`--after-cursor=${this.seenUntil}`];
    const lines = await this.journal("-k", "--show-cursor", ...since);
    const cursor = lines.at(-1)?.match(/^-- cursor: (.+)$/)?.[1];
    if (cursor !== undefined) this.seenUntil = cursor;
    return lines.filter((line) => line.includes("type=1420") && line.includes(text));
  }

  /** Runs a program that has to succeed, and returns what it printed. */
  async output(...command: string[]): Promise<string> {
    const { exitCode, stdout, stderr, error } = await this.run(...command);
    if (exitCode !== 0) throw new Error(`${command.join(" ")}: ${error ?? `exit code ${exitCode}: ${stderr}`}`);
    return stdout;
  }

  close(): void {
    this.socket.destroy();
  }

  private request(request: object): Promise<ProbeResult> {
    const id = this.nextId++;
    return new Promise((resolve, reject) => {
      const timer = setTimeout(() => {
        this.waiting.delete(id);
        const asked = JSON.stringify(request).slice(0, 200);
        reject(new Error(`the probe did not answer ${asked} within ${answerTimeoutMs / 1000} s`));
      }, answerTimeoutMs);
      this.waiting.set(id, (result) => {
        clearTimeout(timer);
        resolve(result);
      });
      this.socket.write(`${JSON.stringify({ id, ...request })}\n`);
    });
  }
}
