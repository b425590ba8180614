import { rename, rm } from "node:fs/promises";
import { createServer, type Server } from "node:net";
import { join } from "node:path";
import { expect, it } from "vitest";
import { withFolder } from "../../../system/testing.js";
import { connectUnix } from "./unix-socket.js";

const listening = (path: string) =>
  new Promise<Server>((resolve) => {
    const server = createServer().listen(path, () => resolve(server));
  });

/** A socket that nobody listens on, as between bind(2) and listen(2). */
async function boundOnly(path: string): Promise<void> {
  const server = await listening(`${path}.once`);
  await rename(`${path}.once`, path);
  await new Promise((resolve) => server.close(resolve));
}

it("connects once a program listens on the socket that it has bound", async () => {
  await withFolder(async (folder) => {
    const path = join(folder, "tpm.sock");
    await boundOnly(path);
    const connected = connectUnix(path, 5000);
    await new Promise((resolve) => setTimeout(resolve, 100));
    await rm(path);
    const server = await listening(path);
    (await connected).destroy();
    server.close();
  });
});

it("gives up on a socket that nobody listens on", async () => {
  await withFolder(async (folder) => {
    const path = join(folder, "dead.sock");
    await boundOnly(path);
    await expect(connectUnix(path, 200)).rejects.toThrow("ECONNREFUSED");
  });
});
