/**
 * BuildKit's daemon for one patch: a process in its own session, so that the end of an `up` does not interrupt it
 * unnoticed. Its state is removed with it.
 */
import { createConnection } from "node:net";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { spawnDetached, processesIn, terminate, type NamedProcess } from "../../system/process.js";
import { isAlive } from "../../../shared/process-identity.js";
import { lastLines } from "../../system/tail.js";
import { sleep } from "../../../shared/sleep.js";
import { runtime } from "./programs.js";
import { mirrorFolder } from "./tooling-image.js";

export const processName = "buildkitd";

/** How long it may take to listen, milliseconds. */
const startMilliseconds = 60_000;

export interface BuildKitOptions {
  /** Folder of the patch, for state and log. */
  folder: string;
  /** File of the unix socket; at most 100 characters. */
  socket: string;
  /** host:port of the registry in which Copa works, which is also the mirror of its tooling images. */
  server: string;
  caFile: string;
  /** Registries for which it stands in. */
  upstreams: string[];
}

/**
 * The settings: https://docs.docker.com/build/buildkit/toml-configuration/. Steps run in the host's network, as the
 * package mirror may be reachable from there only.
 */
export function configuration({ folder, socket, server, caFile, upstreams }: BuildKitOptions): string {
  const text = (value: string) => JSON.stringify(value);
  return [
    `root = ${text(join(folder, "buildkit"))}`,
    "[grpc]",
    `  address = [${text(`unix://${socket}`)}]`,
    "[worker.oci]",
    "  enabled = true",
    '  snapshotter = "auto"',
    '  networkMode = "host"',
    `  binary = ${text(runtime)}`,
    "[worker.containerd]",
    "  enabled = false",
    `[registry.${text(server)}]`,
    // Without this it would use HTTP for an address of the loopback.
    "  http = false",
    `  ca = [${text(caFile)}]`,
    ...upstreams.flatMap((upstream) => [
      `[registry.${text(upstream)}]`,
      `  mirrors = [${text(`${server}/${mirrorFolder}`)}]`,
    ]),
    "",
  ].join("\n");
}

/** Starts it; `started` gets the process before it answers. */
export async function startBuildKit(
  options: BuildKitOptions,
  started: (process: NamedProcess) => Promise<void>,
  signal: AbortSignal,
): Promise<NamedProcess> {
  const { folder, socket } = options;
  await mkdir(join(folder, "buildkit"), { recursive: true, mode: 0o700 });
  const file = join(folder, "buildkitd.toml");
  await writeFile(file, configuration(options));
  for (const forgotten of await processesIn(folder, processName, "buildkitd")) await terminate(forgotten);
  const logFile = join(folder, "buildkitd.log");
  const process = await spawnDetached({
    name: processName,
    // In its own mount namespace: its mounts end with it, and its folder can be removed.
    file: "unshare",
    args: ["--mount", "--propagation", "private", "buildkitd", "--config", file],
    directory: folder,
    logFile,
  });
  await started(process);
  const end = Date.now() + startMilliseconds;
  while (!(await listens(socket))) {
    if (!(await isAlive(process)) || Date.now() > end) {
      throw new Error(`buildkitd did not start; last lines of ${logFile}:\n${await lastLines(logFile, 5)}`);
    }
    await sleep(200, signal);
  }
  return process;
}

/** Ends it and removes its state. */
export async function endBuildKit(process: NamedProcess | undefined, folder: string): Promise<void> {
  await terminate(process, 20_000);
  await rm(join(folder, "buildkit"), { recursive: true, force: true });
}

function listens(socket: string): Promise<boolean> {
  return new Promise((resolve) => {
    const connection = createConnection(socket);
    connection.once("connect", () => connection.end(() => resolve(true)));
    connection.once("error", () => resolve(false));
  });
}
