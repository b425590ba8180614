/**
 * A throw-away project for the real engine: the plain CLI, a file backend, and the provider on the fault-injecting
 * backends as a plugin of its own process, so that tests can kill either.
 */
import { spawn } from "node:child_process";
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from "node:fs";
import { homedir, tmpdir } from "node:os";
import path from "node:path";
import { repairCheckpoint } from "../../../cli/recovery/stack-checkpoint.js";
import { clearStaleLocks, thisMachine } from "../../../cli/recovery/stack-lock.js";
import { World } from "../../support/fakes/world.js";
import { packageRoot } from "../../../shared/directories.js";
import { pulumiVariables } from "../../../shared/pulumi-environment.js";

/** A package whose provider cannot be had here; a plugin that keeps what it is given stands in for it. */
export interface StandIn {
  name: string;
  version: string;
  /** Type token → what it answers beside the inputs. */
  answers: Record<string, Record<string, unknown>>;
}

const repository = packageRoot();

export interface Result {
  exitCode: number | null;
  signal: NodeJS.Signals | null;
  stdout: string;
  stderr: string;
  /** Both streams, for messages. */
  output: string;
}

export interface Step {
  op: string;
  urn: string;
  oldState?: { id?: string; inputs?: Record<string, unknown>; outputs?: Record<string, unknown> };
  newState?: { id?: string; inputs?: Record<string, unknown>; outputs?: Record<string, unknown> };
  detailedDiff?: Record<string, { kind: string; inputDiff?: boolean }> | null;
  diffReasons?: string[];
}

interface StateResource {
  urn: string;
  type: string;
  id?: string;
  custom: boolean;
  inputs?: Record<string, unknown>;
  outputs?: Record<string, unknown>;
}

export class EngineProject {
  readonly root = mkdtempSync(path.join(tmpdir(), "palisade-engine-"));
  readonly backend = path.join(this.root, "backend");
  readonly world: World;

  /**
   * @param program - name of a compiled program in `test/layers/engine/programs`, or a path of one in `dist`
   * @param options - `world`: an existing world to share, e.g. with the project that is imported from; `plugins`: names
   * of plugins of this package that run as they are
   */
  constructor(
    program: string,
    readonly stack = "test",
    options: { world?: World; keys?: string; standIns?: StandIn[]; plugins?: string[] } = {},
  ) {
    this.world = options.world ?? new World(path.join(this.root, "world"));
    this.keys = options.keys ?? path.join(this.root, "keys");
    mkdirSync(this.backend);
    mkdirSync(path.join(this.root, "home"));
    mkdirSync(path.join(this.root, "plugin"));
    if (!options.keys) this.writeKeys();
    symlinkSync(path.join(repository, "node_modules"), path.join(this.root, "node_modules"));
    const standIns = options.standIns ?? [];
    this.writePlugin("palisade", "plugin.js", this.world.directory);
    for (const { name, version, answers } of standIns) {
      const file = path.join(this.root, `${name}.json`);
      writeFileSync(file, JSON.stringify(answers));
      this.writePlugin(name, "stand-in-plugin.js", name, version, file);
    }
    writeFileSync(
      path.join(this.root, "Pulumi.yaml"),
      [
        "name: engine-test",
        "runtime: { name: nodejs, options: { typescript: false } }",
        `main: ${path.resolve(repository, "dist/test/layers/engine/programs", `${program}.js`)}`,
        "options: { refresh: always }",
        "plugins:",
        "  providers:",
        ...["palisade", ...standIns.map(({ name }) => name)].map(
          (name) => `    - { name: ${name}, path: ${path.join(this.root, "plugin")} }`,
        ),
        ...(options.plugins ?? []).map((name) => `    - { name: ${name}, path: ${path.join(repository, "bin")} }`),
        "",
      ].join("\n"),
    );
  }

  readonly keys: string;

  private writePlugin(name: string, script: string, ...args: string[]): void {
    const launcher = path.join(this.root, "plugin", `pulumi-resource-${name}`);
    const command = [process.execPath, path.join(repository, "dist/test/support/fakes", script), ...args];
    writeFileSync(launcher, `#!/bin/sh\nexec ${command.map((word) => `"${word}"`).join(" ")} "$@"\n`);
    chmodSync(launcher, 0o755);
  }

  private writeKeys(): void {
    const folder = path.join(this.keys, "hosts");
    mkdirSync(folder, { recursive: true });
    for (const name of ["ca.crt", "ca.key", "client.crt", "client.key"]) {
      writeFileSync(path.join(folder, name), "not a real key\n", { mode: 0o600 });
    }
    writeFileSync(path.join(this.keys, "hmac.key"), `${"ab".repeat(32)}\n`, { mode: 0o600 });
  }

  environment(extra: NodeJS.ProcessEnv = {}): NodeJS.ProcessEnv {
    const cache =
      process.env["PALISADE_CACHE"] ??
      path.join(process.env["XDG_CACHE_HOME"] ?? path.join(homedir(), ".cache"), "palisade");
    return {
      ...process.env,
      PATH: [path.join(repository, "build/bin"), path.join(cache, "bin"), process.env["PATH"]].join(":"),
      ...pulumiVariables({ backend: `file://${this.backend}`, home: path.join(this.root, "home") }, "engine-test"),
      PULUMI_AUTOMATION_API_SKIP_VERSION_CHECK: "true",
      NO_COLOR: "1",
      ...extra,
    };
  }

  run(args: string[], extra: NodeJS.ProcessEnv = {}): Promise<Result> {
    return new Promise((resolve, reject) => {
      const child = spawn("pulumi", ["--non-interactive", "--color=never", ...args], {
        cwd: this.root,
        env: this.environment(extra),
        stdio: ["ignore", "pipe", "pipe"],
        // A session of its own: a signal meant for the CLI must not end the tests.
        detached: true,
      });
      let stdout = "";
      let stderr = "";
      child.stdout.setEncoding("utf8").on("data", (text: string) => (stdout += text));
      child.stderr.setEncoding("utf8").on("data", (text: string) => (stderr += text));
      child.once("error", reject);
      child.once("exit", (exitCode, signal) => {
        // Orphans of a killed CLI may hold the pipes: what has come until now is what there is.
        setTimeout(() => resolve({ exitCode, signal, stdout, stderr, output: stdout + stderr }), 100);
      });
    });
  }

  async init(config: Record<string, string> = {}): Promise<void> {
    await this.expectSuccess(["stack", "init", this.stack]);
    await this.configure({ keys: this.keys, ...config });
  }

  /** Sets configuration; a value that starts with `secret:` is stored as a secret. */
  async configure(values: Record<string, string>): Promise<void> {
    const file = path.join(this.root, `Pulumi.${this.stack}.yaml`);
    const plain = Object.entries(values).filter(([, value]) => !value.startsWith("secret:"));
    const secret = Object.entries(values).filter(([, value]) => value.startsWith("secret:"));
    if (plain.length) {
      await this.expectSuccess([
        "config",
        "set-all",
        ...plain.flatMap(([key, value]) => ["--plaintext", `${key}=${value}`]),
      ]);
    }
    for (const [key, value] of secret) {
      await this.expectSuccess(["config", "set-all", "--secret", `${key}=${value.slice("secret:".length)}`]);
    }
    if (!existsSync(file)) throw new Error("the stack has no settings file");
  }

  async expectSuccess(args: string[], extra: NodeJS.ProcessEnv = {}): Promise<Result> {
    const result = await this.run(args, extra);
    if (result.exitCode !== 0)
      throw new Error(`pulumi ${args.join(" ")} failed (${result.exitCode}):\n${result.output}`);
    return result;
  }

  up(...args: string[]): Promise<Result> {
    return this.run(["up", "--yes", "--skip-preview", "--stack", this.stack, ...args]);
  }

  destroy(...args: string[]): Promise<Result> {
    return this.run(["destroy", "--yes", "--skip-preview", "--stack", this.stack, ...args]);
  }

  /** The steps of a preview, by JSON; throws when the preview itself fails. */
  async preview(...args: string[]): Promise<Step[]> {
    const result = await this.expectSuccess(["preview", "--json", "--stack", this.stack, ...args]);
    return (JSON.parse(result.stdout) as { steps?: Step[] }).steps ?? [];
  }

  async changes(...args: string[]): Promise<Step[]> {
    return (await this.preview(...args)).filter((step) => !["same", "refresh", "read"].includes(step.op));
  }

  async state(): Promise<StateResource[]> {
    const result = await this.expectSuccess(["stack", "export", "--stack", this.stack]);
    return (JSON.parse(result.stdout) as { deployment: { resources?: StateResource[] } }).deployment.resources ?? [];
  }

  /** What `make up` does before it runs Pulumi: locks of dead processes and cut-off state files are cleared away. */
  async recover(): Promise<void> {
    const place = { backend: this.backend, project: "engine-test", stack: this.stack };
    await clearStaleLocks(place, thisMachine, () => undefined);
    repairCheckpoint(place, () => undefined);
    const state = path.join(this.backend, ".pulumi/stacks/engine-test", `${this.stack}.json`);
    if (!existsSync(state)) await this.expectSuccess(["stack", "init", this.stack]);
  }

  /** Every file below the project and the backend, as text, for searches. */
  files(): Map<string, string> {
    const found = new Map<string, string>();
    const visit = (folder: string): void => {
      for (const entry of readdirSync(folder, { withFileTypes: true })) {
        const file = path.join(folder, entry.name);
        if (entry.isDirectory() && entry.name !== "node_modules") visit(file);
        else if (entry.isFile()) found.set(file, readFileSync(file, "latin1"));
      }
    };
    visit(this.root);
    return found;
  }

  remove(): void {
    rmSync(this.root, { recursive: true, force: true });
  }
}
