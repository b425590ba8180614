/** A consumer's project outside the clone: the packed package, installed by npm, and the plain pulumi CLI. */
import { spawn, spawnSync } from "node:child_process";
import { chmodSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import path from "node:path";
import { packageRoot } from "../../../shared/directories.js";
import { pulumiVariables } from "../../../shared/pulumi-environment.js";

export const repository = packageRoot();

export interface Result {
  exitCode: number | null;
  stdout: string;
  stderr: string;
  /** Both streams, for messages. */
  output: string;
}

export class ConsumerProject {
  /** Real, so that paths in messages compare. */
  readonly root = mkdtempSync(path.join(tmpdir(), "palisade-consumer-"));
  readonly project = path.join(this.root, "project");
  readonly package = path.join(this.project, "node_modules/@palisade-host/palisade");
  readonly world = path.join(this.root, "world");
  readonly keys = path.join(this.root, "operator/keys");
  tarball = "";

  /** Packs the clone's compiled state as `make package` does and installs the package as a consumer does. */
  async install(): Promise<void> {
    for (const file of ["dist/components/index.js", "build/host/palisade-agent"]) {
      if (!existsSync(path.join(repository, file))) throw new Error(`${file} is missing; run \`make build\` first`);
    }
    cpSync(path.join(__dirname, "project"), this.project, { recursive: true });
    mkdirSync(path.join(this.root, "backend"));
    const { stdout } = this.must(await this.run("tools/build/package.sh", [], repository));
    this.tarball = stdout.trimEnd().split("\n").at(-1)!;
    this.must(
      await this.run("npm", [
        "install",
        "--prefer-offline",
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
        this.tarball,
      ]),
    );
  }

  /** Puts the fault-injecting backends beneath the installed package's own provider code. */
  useFakeBackends(): void {
    for (const name of ["fakes", "directory.js"]) {
      const place = path.join("dist/test/support", name);
      cpSync(path.join(repository, place), path.join(this.package, place), { recursive: true });
    }
    const folder = path.join(this.root, "plugin");
    mkdirSync(folder);
    const launcher = path.join(folder, "pulumi-resource-palisade");
    const plugin = path.join(this.package, "dist/test/support/fakes/plugin.js");
    writeFileSync(launcher, `#!/bin/sh\nexec '${process.execPath}' '${plugin}' '${this.world}' "$@"\n`);
    chmodSync(launcher, 0o755);
    this.editProjectFile("node_modules/@palisade-host/palisade/bin", folder);
  }

  /** Changes Pulumi.yaml, as a consumer would in an editor. */
  editProjectFile(from: string, to: string): void {
    const file = path.join(this.project, "Pulumi.yaml");
    const text = readFileSync(file, "utf8");
    if (!text.includes(from)) throw new Error(`${file} does not hold '${from}'`);
    writeFileSync(file, text.replace(from, to));
  }

  environment(): NodeJS.ProcessEnv {
    const cache =
      process.env["PALISADE_CACHE"] ??
      path.join(process.env["XDG_CACHE_HOME"] ?? path.join(homedir(), ".cache"), "palisade");
    return {
      ...process.env,
      PATH: [path.join(repository, "build/bin"), path.join(cache, "bin"), process.env["PATH"]].join(":"),
      PALISADE_HOME: path.join(this.root, "operator"),
      PALISADE_STATE: path.join(this.root, "state"),
      CONSUMER_KEYS: this.keys,
      ...pulumiVariables(
        { backend: `file://${path.join(this.root, "backend")}`, home: path.join(this.root, "home") },
        "consumer",
      ),
      NO_COLOR: "1",
    };
  }

  pulumi(...args: string[]): Promise<Result> {
    return this.run("pulumi", [...args, "--non-interactive"]);
  }

  async run(command: string, args: string[], directory = this.project): Promise<Result> {
    const child = spawn(command, args, { cwd: directory, env: this.environment(), stdio: ["ignore", "pipe", "pipe"] });
    const result: Result = { exitCode: null, stdout: "", stderr: "", output: "" };
    for (const name of ["stdout", "stderr"] as const) {
      child[name].setEncoding("utf8").on("data", (text: string) => {
        result[name] += text;
        result.output += text;
      });
    }
    result.exitCode = await new Promise((resolve, reject) => {
      child.once("error", reject);
      child.once("close", resolve);
    });
    return result;
  }

  must(result: Result): Result {
    if (result.exitCode !== 0) throw new Error(`exit code ${result.exitCode}\n${result.output}`);
    return result;
  }

  /**
   * Type-checks texts as files of these names, with the clone's compiler and the consumer's packages; returns
   * complaints.
   */
  typeCheck(files: Record<string, string>): string {
    for (const [name, text] of Object.entries(files)) writeFileSync(path.join(this.project, name), text);
    const compiler = path.join(repository, "node_modules/typescript/bin/tsc");
    const options = ["--noEmit", "--strict", "--module", "node16", "--target", "es2022", "--skipLibCheck"];
    const types = ["--typeRoots", path.join(repository, "node_modules/@types"), "--types", "node"];
    const { stdout } = spawnSync(
      process.execPath,
      [compiler, ...options, ...types, "--pretty", "false", ...Object.keys(files)],
      { cwd: this.project, encoding: "utf8" },
    );
    return stdout;
  }

  remove(): void {
    rmSync(this.root, { recursive: true, force: true });
  }
}
