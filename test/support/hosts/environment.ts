/**
 * A home, a state folder and a backend of its own for one end-to-end run; the cache of builds is shared with the user.
 */
import { execFileSync, spawn } from "node:child_process";
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { createLocalBackends } from "../../../provider/local/index.js";
import type { AgentClient, HostConnection } from "../../../provider/backends/index.js";
import { withLock } from "../../../provider/system/lock.js";
import { packageRoot } from "../../../shared/directories.js";
import { namesIn } from "../directory.js";

export const repository = packageRoot();

/** Where builds are cached, shared with the user. */
export function cacheDirectory(): string {
  const caches = process.env["XDG_CACHE_HOME"] ?? path.join(process.env["HOME"] ?? "/", ".cache");
  return process.env["PALISADE_CACHE"] ?? path.join(caches, "palisade");
}

/**
 * Keys of an operator for tests, made once for this machine, as `palisade keys init` makes them. They protect nothing.
 */
export async function testKeys(): Promise<string> {
  const home = path.join(cacheDirectory(), "test-operator");
  return withLock(`${home}.lock`, undefined, async () => {
    execFileSync(path.join(repository, "bin/palisade"), ["keys", "init"], {
      env: { ...process.env, PALISADE_HOME: home },
    });
    return path.join(home, "keys");
  });
}

export interface CommandResult {
  exitCode: number;
  stdout: string;
  stderr: string;
  seconds: number;
}

export interface StateResource {
  urn: string;
  type: string;
  id?: string;
  custom: boolean;
  outputs: Record<string, unknown>;
}

export interface ProcessRecord {
  name: string;
  pid: number;
}

export interface Marker {
  owner: { stack: string };
  spec: Record<string, unknown>;
  processes: ProcessRecord[];
}

/** Commands of Pulumi that leave the stack as it is. */
const readsOnly = ["preview", "stack output", "stack export"];

export class Environment {
  readonly home: string;
  readonly state: string;
  readonly variables: NodeJS.ProcessEnv;
  /**
   * Answers of Pulumi that hold until a command changes the stack: a Pulumi process takes longer than most questions.
   */
  private readonly answers = new Map<string, Promise<unknown>>();

  /** @param root folder of home and state; stacks that share it are of one operator on one machine. */
  constructor(
    readonly stack = "local",
    readonly root = mkdtempSync(path.join(tmpdir(), "palisade-e2e-")),
  ) {
    this.home = path.join(root, "home");
    this.state = path.join(root, "state");
    this.variables = { ...process.env, PALISADE_HOME: this.home, PALISADE_STATE: this.state, STACK: stack };
  }

  /**
   * Gives the operator the keys that all tests of this machine share. Images and templates depend on the operator's
   * certificates, so with keys of its own each test would build and boot them again.
   */
  async useTestKeys(): Promise<void> {
    const keys = await testKeys();
    mkdirSync(this.home, { recursive: true, mode: 0o700 });
    execFileSync("cp", ["--archive", keys, path.join(this.home, "keys")]);
  }

  /** Settings of this stack, as a `Pulumi.<stack>.yaml` that git ignores; the stack's name begins with e2e-. */
  configure(settings: Record<string, string>): void {
    const lines = Object.entries(settings).map(([name, value]) => `  palisade:${name}: ${JSON.stringify(value)}\n`);
    writeFileSync(this.settingsFile, `config:\n${lines.join("")}`);
  }

  private get settingsFile(): string {
    return path.join(repository, `Pulumi.${this.stack}.yaml`);
  }

  /**
   * Runs a program in the repository and gathers what it prints; progress goes to the test's own output as well, unless
   * it is an answer that only the test reads.
   */
  async run(
    command: string,
    args: string[],
    started = (_pid: number) => {},
    show: (stream: NodeJS.WriteStream, text: string) => void = (stream, text) => void stream.write(text),
  ): Promise<CommandResult> {
    const since = Date.now();
    const child = spawn(command, args, { cwd: repository, env: this.variables, stdio: ["ignore", "pipe", "pipe"] });
    if (child.pid !== undefined) started(child.pid);
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      stdout += text;
      show(process.stdout, text);
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr += text;
      show(process.stderr, text);
    });
    const exitCode = await new Promise<number>((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (code) => resolve(code ?? -1));
    });
    return { exitCode, stdout, stderr, seconds: (Date.now() - since) / 1000 };
  }

  /** A target of the Makefile, as a user runs it. */
  make(target: string): Promise<CommandResult> {
    return this.changing(() => this.run("make", [target]));
  }

  /** What `make up` does once everything is built. */
  up(started?: (pid: number) => void): Promise<CommandResult> {
    return this.changing(() => this.run("tools/stack/up.sh", [], started));
  }

  /** What `make down` does once everything is built. */
  down(): Promise<CommandResult> {
    return this.changing(() => this.run("env", ["PALISADE_BUILT=1", "tools/stack/down.sh"]));
  }

  /** Pulumi on this environment's stack, as `tools/stack/stack.sh` runs it. */
  pulumi(...args: string[]): Promise<CommandResult> {
    const run = () => this.run("tools/stack/stack.sh", args);
    return readsOnly.some((command) => args.join(" ").startsWith(command)) ? run() : this.changing(run);
  }

  private async changing<T>(work: () => Promise<T>): Promise<T> {
    this.answers.clear();
    try {
      return await work();
    } finally {
      this.answers.clear();
    }
  }

  private answer<T>(...args: string[]): Promise<T> {
    const question = args.join(" ");
    const known = this.answers.get(question);
    if (known) return known as Promise<T>;
    const quiet = this.run("tools/stack/stack.sh", args, undefined, () => undefined);
    const asked = quiet.then(({ exitCode, stdout, stderr }) => {
      if (exitCode !== 0) throw new Error(stderr);
      return JSON.parse(stdout) as T;
    });
    this.answers.set(question, asked);
    // A question that failed is asked again.
    asked.catch(() => this.answers.delete(question));
    return asked;
  }

  /** Outputs of the stack. */
  outputs(): Promise<Record<string, unknown>> {
    return this.answer("stack", "output", "--json");
  }

  /** Resources of the stack's state, by name. */
  async resources(): Promise<Map<string, StateResource>> {
    const state = await this.answer<{ deployment: { resources?: StateResource[] } }>("stack", "export");
    return new Map(
      (state.deployment.resources ?? []).map((one) => [one.urn.slice(one.urn.lastIndexOf("::") + 2), one]),
    );
  }

  /** The stack's resources of a type of ours, e.g. `VirtualMachine`. */
  async resource(type: string): Promise<StateResource> {
    const found = [...(await this.resources()).values()].find((one) => one.type === `palisade:index:${type}`);
    if (!found) throw new Error(`the stack ${this.stack} has no ${type}`);
    return found;
  }

  /** Calls the agent of the stack's host as the operator. */
  async agent<T>(use: (client: AgentClient) => Promise<T>): Promise<T> {
    const machine = await this.resource("VirtualMachine");
    const { agents } = createLocalBackends({ stateDirectory: this.state, cacheDirectory: this.root });
    const client = agents.connect(machine.outputs["connection"] as HostConnection);
    try {
      return await use(client);
    } finally {
      client.close();
    }
  }

  /** The things of one kind that the machine's state folder holds for this stack, by id. */
  things(kind: "virtual-machines" | "state-disks" | "registries"): Map<string, Marker> {
    const ids = namesIn(path.join(this.state, kind)).filter((name) => !name.startsWith("."));
    const marker = (id: string) =>
      JSON.parse(readFileSync(path.join(this.state, kind, id, "marker.json"), "utf8")) as Marker;
    return new Map(ids.map((id) => [id, marker(id)] as const).filter(([, { owner }]) => owner.stack === this.stack));
  }

  /** Folder of the stack's only thing of a kind. */
  folder(kind: "virtual-machines" | "registries"): string {
    const [id] = this.things(kind).keys();
    if (id === undefined) throw new Error(`the stack ${this.stack} has nothing in ${kind}`);
    return path.join(this.state, kind, id);
  }

  processId(kind: "virtual-machines" | "registries", name: string): number {
    const [marker] = this.things(kind).values();
    const found = marker?.processes.find((process) => process.name === name);
    if (!found) throw new Error(`no process ${name} in the marker of ${kind}`);
    return found.pid;
  }

  remove(): void {
    rmSync(this.root, { recursive: true, force: true });
    if (this.stack.startsWith("e2e-")) rmSync(this.settingsFile, { force: true });
  }
}

export function isAlive(pid: number): boolean {
  try {
    // A zombie is not alive: its state is Z.
    return !/^State:\s+Z/m.test(readFileSync(`/proc/${pid}/status`, "utf8"));
  } catch {
    return false;
  }
}

/** Polls until `probe` gives something, and fails with the last error after `seconds`. */
export async function eventually<T>(what: string, seconds: number, probe: () => Promise<T | undefined>): Promise<T> {
  const deadline = Date.now() + seconds * 1000;
  let last: unknown;
  while (Date.now() < deadline) {
    try {
      const result = await probe();
      if (result !== undefined) return result;
    } catch (error) {
      last = error;
    }
    await new Promise((resolve) => setTimeout(resolve, 1000));
  }
  throw new Error(`${what}: not within ${seconds} s${last ? `; last error: ${String(last)}` : ""}`);
}
