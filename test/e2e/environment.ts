/** A home, a state folder and a backend of its own for one end-to-end run; the cache of builds is shared with the user. */
import { spawn } from "node:child_process";
import { mkdtempSync, readdirSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";

export const repository = path.resolve(__dirname, "../..");

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
  spec: Record<string, unknown>;
  processes: ProcessRecord[];
}

export class Environment {
  readonly root = mkdtempSync(path.join(tmpdir(), "palisade-e2e-"));
  readonly home = path.join(this.root, "home");
  readonly state = path.join(this.root, "state");
  readonly variables: NodeJS.ProcessEnv;

  constructor(readonly stack = "local") {
    this.variables = { ...process.env, PALISADE_HOME: this.home, PALISADE_STATE: this.state, STACK: stack };
  }

  /** Runs a program in the repository and gathers what it prints; progress goes to the test's own output as well. */
  async run(command: string, args: string[], extra: NodeJS.ProcessEnv = {}): Promise<CommandResult> {
    const started = Date.now();
    const child = spawn(command, args, {
      cwd: repository,
      env: { ...this.variables, ...extra },
      stdio: ["ignore", "pipe", "pipe"],
    });
    let stdout = "";
    let stderr = "";
    child.stdout.setEncoding("utf8").on("data", (text: string) => {
      stdout += text;
      process.stdout.write(text);
    });
    child.stderr.setEncoding("utf8").on("data", (text: string) => {
      stderr += text;
      process.stderr.write(text);
    });
    const exitCode = await new Promise<number>((resolve, reject) => {
      child.once("error", reject);
      child.once("close", (code) => resolve(code ?? -1));
    });
    return { exitCode, stdout, stderr, seconds: (Date.now() - started) / 1000 };
  }

  make(target: string): Promise<CommandResult> {
    return this.run("make", [target]);
  }

  /** Pulumi on this environment's stack, as `tools/stack.sh` runs it. */
  pulumi(...args: string[]): Promise<CommandResult> {
    return this.run("tools/stack.sh", args);
  }

  async outputs(): Promise<Record<string, unknown>> {
    const result = await this.pulumi("stack", "output", "--json");
    if (result.exitCode !== 0) throw new Error(result.stderr);
    return JSON.parse(result.stdout) as Record<string, unknown>;
  }

  /** Resources of the stack's state, by name. */
  async resources(): Promise<Map<string, StateResource>> {
    const result = await this.pulumi("stack", "export");
    if (result.exitCode !== 0) throw new Error(result.stderr);
    const state = JSON.parse(result.stdout) as { deployment: { resources?: StateResource[] } };
    return new Map(
      (state.deployment.resources ?? []).map((one) => [one.urn.slice(one.urn.lastIndexOf("::") + 2), one]),
    );
  }

  /** The things of one kind that the machine's state folder holds, by id. */
  things(kind: "virtual-machines" | "state-disks" | "registries"): Map<string, Marker> {
    let ids: string[] = [];
    try {
      ids = readdirSync(path.join(this.state, kind)).filter((name) => !name.startsWith("."));
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ENOENT") throw error;
    }
    return new Map(
      ids.map((id) => [id, JSON.parse(readFileSync(path.join(this.state, kind, id, "marker.json"), "utf8")) as Marker]),
    );
  }

  processId(kind: "virtual-machines" | "registries", name: string): number {
    const [marker] = this.things(kind).values();
    const found = marker?.processes.find((process) => process.name === name);
    if (!found) throw new Error(`no process ${name} in the marker of ${kind}`);
    return found.pid;
  }

  remove(): void {
    rmSync(this.root, { recursive: true, force: true });
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
