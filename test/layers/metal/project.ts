/** A project on the real engine with the drop-in plugin, as a consumer has it. */
import { spawn } from "node:child_process";
import { mkdirSync, symlinkSync, writeFileSync } from "node:fs";
import path from "node:path";
import { repository } from "./machine.js";
import { pulumiVariables } from "../../../shared/pulumi-environment.js";

export interface Outcome {
  exitCode: number | null;
  output: string;
}

export class Project {
  /** @param program name of a compiled program in `test/layers/metal/programs` */
  constructor(
    private readonly root: string,
    program: string,
  ) {
    mkdirSync(path.join(root, "backend"), { recursive: true });
    mkdirSync(path.join(root, "home"));
    symlinkSync(path.join(repository, "node_modules"), path.join(root, "node_modules"));
    const main = path.join(repository, `dist/test/layers/metal/programs/${program}.js`);
    const plugin = (name: string) => `    - { name: ${name}, path: ${path.join(repository, "bin")} }`;
    writeFileSync(
      path.join(root, "Pulumi.yaml"),
      [
        "name: metal-test",
        "runtime: { name: nodejs, options: { typescript: false } }",
        `main: ${main}`,
        "plugins:",
        "  providers:",
        plugin("command"),
        "",
      ].join("\n"),
    );
  }

  /**
   * Runs `pulumi`.
   * @param until ends the engine, without a chance to write anything, when this has been said
   * @param later milliseconds after that
   */
  run(args: string[], until?: RegExp, later = 0): Promise<Outcome> {
    return new Promise((resolve, reject) => {
      const child = spawn("pulumi", ["--non-interactive", "--color=never", ...args], {
        cwd: this.root,
        env: {
          ...process.env,
          PATH: `${path.join(repository, "build/bin")}:${process.env["PATH"]}`,
          ...pulumiVariables(
            { backend: `file://${path.join(this.root, "backend")}`, home: path.join(this.root, "home") },
            "metal-test",
          ),
        },
        stdio: ["ignore", "pipe", "pipe"],
        detached: true,
      });
      let output = "";
      const add = (text: string) => {
        output += text;
        if (!until?.test(output)) return;
        until = undefined;
        setTimeout(() => process.kill(-child.pid!, "SIGKILL"), later);
      };
      child.stdout.setEncoding("utf8").on("data", add);
      child.stderr.setEncoding("utf8").on("data", add);
      child.once("error", reject);
      child.once("exit", (exitCode) => setTimeout(() => resolve({ exitCode, output }), 500));
    });
  }

  async configure(values: Record<string, string>): Promise<void> {
    for (const [name, value] of Object.entries(values)) {
      const how = name === "privateKey" ? "--secret" : "--plaintext";
      const set = await this.run(["config", "set", "--stack", "test", `test:${name}`, how, "--", value]);
      if (set.exitCode !== 0) throw new Error(set.output);
    }
  }
}
