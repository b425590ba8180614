/** Connections to Unix sockets with paths of any length. */
import { open } from "node:fs/promises";
import { connect, type Socket } from "node:net";
import { basename, dirname } from "node:path";
import { sleep } from "../../../../shared/sleep.js";

/**
 * Connects through an open descriptor of the folder: the kernel takes at most 107 bytes of path, and state folders may
 * lie deeper than that.
 */
export async function connectUnix(path: string, milliseconds: number, signal?: AbortSignal): Promise<Socket> {
  const refusedUntil = Date.now() + Math.min(milliseconds, listenMilliseconds);
  for (;;) {
    try {
      return await connectOnce(path, milliseconds, signal);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== "ECONNREFUSED" || Date.now() >= refusedUntil) throw error;
      await sleep(20, signal);
    }
  }
}

/** A program binds its socket a moment before it listens. In between the file is there, and connections are refused. */
const listenMilliseconds = 1000;

async function connectOnce(path: string, milliseconds: number, signal?: AbortSignal): Promise<Socket> {
  signal?.throwIfAborted();
  const folder = await open(dirname(path), "r");
  try {
    return await new Promise<Socket>((resolve, reject) => {
      const socket = connect(`/proc/self/fd/${folder.fd}/${basename(path)}`);
      const fail = (error: Error) => {
        settle();
        socket.destroy();
        reject(error);
      };
      const aborted = () => fail(signal?.reason as Error);
      const timer = setTimeout(() => fail(new Error(`${path}: no connection within ${milliseconds} ms`)), milliseconds);
      const settle = () => {
        clearTimeout(timer);
        signal?.removeEventListener("abort", aborted);
        socket.removeListener("error", fail);
      };
      signal?.addEventListener("abort", aborted, { once: true });
      socket.once("error", fail);
      socket.once("connect", () => {
        settle();
        resolve(socket);
      });
    });
  } finally {
    await folder.close();
  }
}
