/**
 * `palisade patch-tools`: the programs that patch images, built from pinned sources, for those who have the npm package
 * only.
 */
import { spawn } from "node:child_process";
import { readFileSync } from "node:fs";
import { mkdir, rename, rm, symlink } from "node:fs/promises";
import path from "node:path";
import { defaultCacheDirectory, packageRoot } from "../shared/directories.js";
import { type OutputOptions, writeDocument } from "./output.js";

/** JSON: the folder for PATH, and the commands in it. */
export async function patchTools(options: OutputOptions & { directory?: string }): Promise<number> {
  const directory = options.directory ?? path.join(defaultCacheDirectory(), "patch-tools");
  const folder = path.join(packageRoot(), "provider/local/patching/tools");
  const tools = listTools(folder);
  await requireGo();
  await mkdir(directory, { recursive: true });
  for (const { module, program, command, title } of tools) {
    process.stderr.write(`building ${title}\n`);
    const built = (await output("bash", [path.join(folder, "go-tool.sh"), path.join(folder, module)])).trim();
    await link(path.join(built, program), path.join(directory, command));
  }
  const commands = tools.map(({ command }) => command);
  process.stderr.write(`linked into ${directory}: ${commands.join(", ")}\n`);
  if (options.output === "json") writeDocument({ directory, commands });
  else process.stdout.write(`export PATH="${directory.replaceAll(/["$`\\]/g, "\\$&")}:$PATH"\n`);
  return 0;
}

/** A line of `list.txt`: folder of the pin, program that is built there, name of the command, what it is. */
export interface PatchTool {
  module: string;
  program: string;
  command: string;
  title: string;
}

/** @param folder that of `list.txt`. */
export function listTools(folder: string): PatchTool[] {
  const lines = readFileSync(path.join(folder, "list.txt"), "utf8").split("\n");
  return lines
    .filter((line) => line !== "" && !line.startsWith("#"))
    .map((line) => {
      const [module, program, command, ...title] = line.split(" ");
      return { module: module!, program: program!, command: command!, title: title.join(" ") };
    });
}

async function requireGo(): Promise<void> {
  await output("go", ["version"]).catch((error: NodeJS.ErrnoException) => {
    if (error.code !== "ENOENT") throw error;
    throw new Error("needs Go on PATH, version 1.26 or newer: https://go.dev/doc/install");
  });
}

/** Replaces an existing one; the command is never absent meanwhile. */
async function link(target: string, file: string): Promise<void> {
  const made = `${file}.${process.pid}.new`;
  await rm(made, { force: true });
  await symlink(target, made);
  await rename(made, file);
}

/** The standard output of a program; its standard error is shown as it comes. */
function output(program: string, args: string[]): Promise<string> {
  return new Promise((resolve, reject) => {
    const child = spawn(program, args, {
      stdio: ["ignore", "pipe", "inherit"],
      env: { ...process.env, PALISADE_CACHE: defaultCacheDirectory() },
    });
    let text = "";
    child.stdout.setEncoding("utf8").on("data", (chunk: string) => (text += chunk));
    child.once("error", reject);
    child.once("close", (code) =>
      code === 0 ? resolve(text) : reject(new Error(`${program} ${args.join(" ")} ended with ${code}`)),
    );
  });
}
