import { spawn } from "node:child_process";
import { randomBytes } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import type { ConfigMap, PulumiFn, Stack } from "@pulumi/pulumi/automation/index.js";
import { packageRoot } from "../../shared/directories.js";
import {
  ephemeralFolder,
  newEphemeralMarker,
  openEphemeralStack,
  requirePulumi,
  writeEphemeralMarker,
  type EphemeralMarker,
} from "../internal/ephemeral.js";

/** Options of {@link ephemeralStack}. */
export interface EphemeralStackOptions {
  /** Name of the Pulumi project: letters, digits, `-`, `_`, `.`. Default: `ephemeral`. */
  project?: string;
  /** Configuration of the stack; keys without a namespace are the project's. */
  config?: ConfigMap;
  /** Seconds that `up` may take. Default: 900, as long as a first host image and template take. */
  timeoutSeconds?: number;
  /** Leave a stack whose `up` failed as it is; `palisade reap --kept` removes it. Default: false. */
  keepOnFailure?: boolean;
  /** Gets Pulumi's output as it comes. Default: nothing is printed. */
  onOutput?: (text: string) => void;
}

/** A stack that exists until {@link destroy} or the end of this process, whichever comes first. */
export interface EphemeralStack {
  /** Unique on this machine; also the name of the Pulumi stack. */
  readonly id: string;
  /** The Automation API's stack, for refresh, preview, export and the like. */
  readonly stack: Stack;
  /** The program's outputs, secrets in clear. */
  readonly outputs: Record<string, unknown>;
  /** Runs the program again, or another one, and returns the new outputs. */
  up(program?: PulumiFn): Promise<Record<string, unknown>>;
  /** Removes everything. Once is enough, more does no harm. */
  destroy(): Promise<void>;
}

/**
 * Runs `up` of a program in a stack of its own, with its own file backend, passphrase and name. Several test runners
 * may do so at the same time.
 *
 * Nothing stays behind. {@link EphemeralStack.destroy} destroys the stack, and so does a failed `up`. When this process
 * ends without that, by an error, Ctrl-C or SIGKILL, a separate process destroys the stack. The next `ephemeralStack`
 * or `palisade reap` removes whatever is still there.
 *
 * @throws Error when `up` fails, with Pulumi's own words.
 */
export async function ephemeralStack(program: PulumiFn, options: EphemeralStackOptions = {}): Promise<EphemeralStack> {
  const { project = "ephemeral", timeoutSeconds = 900, keepOnFailure = false } = options;
  if (!/^[A-Za-z0-9_.-]{1,100}$/.test(project)) {
    throw new Error(`project: ${JSON.stringify(project)} is no project name; use letters, digits, "-", "_" and "."`);
  }
  if (!(timeoutSeconds > 0)) throw new Error(`timeoutSeconds: ${timeoutSeconds} is not more than 0`);
  requirePulumi();
  // Stacks of killed runners are removed first, because they take memory and disk. A failure of that does not fail this
  // stack.
  await reap([], options.onOutput).catch((error: Error) => options.onOutput?.(`${error.message}\n`));

  const marker = await newEphemeralMarker(`ephemeral-${randomBytes(6).toString("hex")}`, project);
  makeFolder(marker);
  const release = guard(marker.id);
  const destroy = async () => {
    await reap(["--id", marker.id], options.onOutput);
    release();
  };
  try {
    const stack = await openEphemeralStack(marker, program);
    await stack.setAllConfig(options.config ?? {});
    const result: EphemeralStack = {
      id: marker.id,
      stack,
      outputs: {},
      async up(next = program) {
        const { outputs } = await stack.up({
          program: next,
          onOutput: options.onOutput,
          color: "never",
          signal: AbortSignal.timeout(timeoutSeconds * 1000),
        });
        const values = Object.fromEntries(Object.entries(outputs).map(([name, { value }]) => [name, value as unknown]));
        Object.assign(result, { outputs: values });
        return values;
      },
      destroy,
    };
    await result.up();
    return result;
  } catch (error) {
    if (!keepOnFailure) {
      await destroy().catch((error: Error) => options.onOutput?.(`${error.message}\n`));
      throw error;
    }
    writeEphemeralMarker({ ...marker, kept: true });
    release();
    const folder = ephemeralFolder(marker.id);
    throw new Error(
      `${(error as Error).message}\n${marker.id} is kept, its project is in ${folder}; \`palisade reap --kept\` removes it`,
      { cause: error },
    );
  }
}

/** The marker is written first, so that everything made later can be found by it. */
function makeFolder(marker: EphemeralMarker): void {
  const folder = ephemeralFolder(marker.id);
  for (const name of ["backend", "project"]) mkdirSync(path.join(folder, name), { recursive: true, mode: 0o700 });
  writeFileSync(path.join(folder, "passphrase"), `${randomBytes(32).toString("hex")}\n`, { mode: 0o600 });
  writeEphemeralMarker(marker);
}

/** Starts the process that destroys the stack when this one ends. The result is a function that ends it. */
function guard(id: string): () => void {
  const child = spawn(process.execPath, [path.join(packageRoot(), "bin/palisade"), "reap", "--when-runner-ends", id], {
    // A session of its own, so that Ctrl-C does not reach it; it notices our end by its standard input.
    detached: true,
    stdio: ["pipe", "ignore", "ignore"],
  });
  child.on("error", () => undefined);
  child.stdin.on("error", () => undefined);
  child.unref();
  (child.stdin as unknown as { unref(): void }).unref();
  return () => void child.stdin.end();
}

/** Runs `palisade reap`. */
async function reap(args: string[], onOutput: ((text: string) => void) | undefined): Promise<void> {
  const child = spawn(process.execPath, [path.join(packageRoot(), "bin/palisade"), "reap", ...args], {
    stdio: ["ignore", "pipe", "pipe"],
    // Ctrl-C does not end the removal half-way.
    detached: true,
  });
  let words = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      words += text;
      onOutput?.(text);
    });
  }
  const code = await new Promise<number | null>((resolve, reject) => {
    child.once("error", reject);
    child.once("close", resolve);
  });
  if (code !== 0) throw new Error(`palisade reap ${args.join(" ")} failed:\n${words.trim()}`);
}
