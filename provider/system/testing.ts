/** For tests of the backends: temporary folders and operations that record their calls. */
import { createServer } from "node:net";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import type { Operation, Owner } from "../backends/index.js";

/** Runs `work` with a new folder, which is removed afterwards. */
export async function withFolder<T>(work: (folder: string) => Promise<T>): Promise<T> {
  const folder = await mkdtemp(join(tmpdir(), "palisade-test-"));
  try {
    return await work(folder);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

/** An owner as the engine names it; another name is another owner. */
export function testOwner(name: string): Owner {
  const urn = `urn:pulumi:test::palisade::palisade:index:Thing::${name}`;
  return { backend: "file:///tests", project: "palisade", stack: "test", urn };
}

export interface RecordedOperation extends Operation {
  /** Names of the checkpoints in the order they were reached. */
  checkpoints: string[];
  /** Log and status lines. */
  lines: string[];
}

/**
 * An operation that records its checkpoints and messages.
 *
 * @param options.stopAt a checkpoint at which the call is cancelled, as if by the engine.
 */
export function testOperation(
  name: string,
  options: { milliseconds?: number; stopAt?: string } = {},
): RecordedOperation {
  const controller = new AbortController();
  const checkpoints: string[] = [];
  const lines: string[] = [];
  return {
    owner: testOwner(name),
    signal: controller.signal,
    deadline: Date.now() + (options.milliseconds ?? 60_000),
    checkpoints,
    lines,
    log: (severity, message) => void lines.push(`${severity}: ${message}`),
    status: (message) => void lines.push(message),
    async checkpoint(reached) {
      checkpoints.push(reached);
      if (reached !== options.stopAt) return;
      controller.abort();
      controller.signal.throwIfAborted();
    },
  };
}

/** A TCP port of the loopback that is free at this moment. */
export async function freePort(): Promise<number> {
  const server = createServer().listen(0, "127.0.0.1");
  await new Promise((resolve) => server.once("listening", resolve));
  const { port } = server.address() as { port: number };
  await new Promise((resolve) => server.close(resolve));
  return port;
}
