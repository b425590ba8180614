/** Mutual exclusion between operations of any process on this machine, by the kernel's file locks. */
import { spawn } from "node:child_process";
import { mkdir } from "node:fs/promises";
import { dirname } from "node:path";

/**
 * Takes the exclusive lock of a file (made when absent) and waits for it as long as the signal allows.
 *
 * The lock is held by a small child that ends with its standard input, which closes when this process ends in any way.
 * So the lock of a dead process is free at once, without a guess whose it was. The child has a session of its own, so a
 * signal to our process group does not unlock while we still clean up.
 *
 * @returns a function that releases it.
 */
export async function acquireLock(path: string, signal?: AbortSignal): Promise<() => Promise<void>> {
  signal?.throwIfAborted();
  await mkdir(dirname(path), { recursive: true, mode: 0o700 });
  const child = spawn("flock", ["--exclusive", "--no-fork", path, "cat"], {
    detached: true,
    stdio: ["pipe", "pipe", "pipe"],
    env: { PATH: "/usr/bin:/bin" },
  });
  const closed = new Promise<void>((resolve) => child.once("close", () => resolve()));
  const release = async () => {
    child.stdin.end();
    await closed;
  };
  let complaint = "";
  child.stderr.on("data", (data: Buffer) => (complaint += data.toString()));
  child.stdin.on("error", () => undefined);
  try {
    await new Promise<void>((resolve, reject) => {
      const aborted = () => {
        child.kill("SIGKILL");
        reject(signal?.reason as Error);
      };
      signal?.addEventListener("abort", aborted, { once: true });
      child.once("error", (error) => reject(new Error(`flock cannot be run: ${error.message}; install util-linux`)));
      child.once("close", () => reject(new Error(`${path}: cannot be locked: ${complaint.trim()}`)));
      // cat runs only once the lock is held; its echo says so.
      child.stdout.once("data", () => {
        signal?.removeEventListener("abort", aborted);
        resolve();
      });
      child.stdin.write("locked\n");
    });
  } catch (error) {
    child.stdin.end();
    throw error;
  }
  return release;
}

/** Runs `work` while the lock of `path` is held. */
export async function withLock<T>(path: string, signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T> {
  const release = await acquireLock(path, signal);
  try {
    return await work();
  } finally {
    await release();
  }
}
