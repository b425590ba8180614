/** `palisade recover`: what a killed Pulumi leaves in a file backend and then refuses to work on. */
import { execFile, spawn } from "node:child_process";
import { existsSync, readFileSync } from "node:fs";
import path from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs, promisify } from "node:util";
import * as v from "valibot";
import { decode, object } from "../shared/decode.js";
import { packageRoot } from "../internal/directories.js";
import type { Command } from "./commands.js";
import { pulumiEnvironment } from "./environment.js";

export const recoverCommand: Command = {
  usage: "recover [--stack NAME]",
  help: "after a killed pulumi, on a file backend: clears its stale lock, repairs a state file that was cut off",
  async run(args) {
    const { values } = parseArgs({ args, options: { stack: { type: "string" } } });
    const stack = values.stack ?? pulumiEnvironment()["PULUMI_STACK"]!;
    const target = [await backendFolder(), projectName(), stack];
    // What a living Pulumi is at work on is not touched.
    for (const tool of ["stack-lock", "stack-checkpoint"]) {
      const exitCode = await runTool(tool, target);
      if (exitCode !== 0) return exitCode;
    }
    return 0;
  },
};

/** The folder of the backend on which plain `pulumi` works here. */
async function backendFolder(): Promise<string> {
  const url = process.env["PULUMI_BACKEND_URL"] || (await loggedInto());
  if (!url.startsWith("file://")) {
    throw new Error(
      `the backend ${url} is no folder of this machine; \`pulumi cancel\` removes a lock of other backends, and their state is kept by them`,
    );
  }
  // As Pulumi reads it: `file://~` is the home, whatever follows is a path.
  const place = url.slice("file://".length);
  if (place === "" || place === "~" || place.startsWith("~/")) {
    return path.join(process.env["HOME"] ?? "/", place.slice(1));
  }
  return place.startsWith("/") ? fileURLToPath(url) : path.resolve(place);
}

async function loggedInto(): Promise<string> {
  const { stdout } = await promisify(execFile)("pulumi", ["whoami", "--json", "--non-interactive"]).catch(
    (error: Error & { stderr?: string }) => {
      throw new Error(`PULUMI_BACKEND_URL is not set, and pulumi names no backend: ${error.stderr ?? error.message}`);
    },
  );
  return decode(object({ url: v.string() }), stdout, "pulumi whoami").url;
}

/** Of the nearest Pulumi.yaml. */
function projectName(): string {
  for (let folder = process.cwd(); ; folder = path.dirname(folder)) {
    const file = path.join(folder, "Pulumi.yaml");
    if (existsSync(file)) {
      const name = /^name: *["']?([^\s"'#]+)/m.exec(readFileSync(file, "utf8"))?.[1];
      if (name === undefined) throw new Error(`${file} names no project`);
      return name;
    }
    if (folder === path.dirname(folder)) {
      throw new Error(`there is no Pulumi.yaml in ${process.cwd()} or above; run this in the project's folder`);
    }
  }
}

/** @returns its exit code. */
function runTool(tool: string, args: string[]): Promise<number> {
  return new Promise((resolve, reject) => {
    const script = path.join(packageRoot(), "tools", `${tool}.mjs`);
    const child = spawn(process.execPath, [script, ...args], { stdio: ["ignore", "inherit", "inherit"] });
    child.once("error", reject);
    child.once("close", (code) => resolve(code ?? 1));
  });
}
