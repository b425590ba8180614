import { createServer } from "node:net";
import { once } from "node:events";
import { mkdir, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { isFree, PortReservations, PortTakenError } from "./ports.js";
import { withFolder } from "./testing.js";

const address = "127.0.0.1";
const any = { protocol: "TCP", address, port: 0 } as const;

async function holder(folder: string, name: string): Promise<string> {
  const path = join(folder, name);
  await mkdir(path);
  await writeFile(join(path, "marker.json"), "{}");
  return path;
}

describe("PortReservations", () => {
  it("never gives the same port twice, also concurrently", async () => {
    await withFolder(async (folder) => {
      const holders = await Promise.all([..."abcdefgh"].map((name) => holder(folder, name)));
      const chosen = await Promise.all(
        // A set of reservations each, as separate plugins have.
        holders.map((each) => new PortReservations(join(folder, "ports")).reserve(each, any)),
      );
      expect(new Set(chosen).size).toBe(chosen.length);
    });
  });

  it("keeps what the holder has, and says who else holds it", async () => {
    await withFolder(async (folder) => {
      const ports = new PortReservations(join(folder, "ports"));
      const [a, b] = [await holder(folder, "a"), await holder(folder, "b")];
      const port = await ports.reserve(a, any);
      expect(await ports.reserve(a, { ...any, port })).toBe(port);
      await expect(ports.reserve(b, { ...any, port })).rejects.toThrow(new RegExp(`reserved by ${a}`));
      await ports.releaseAll(a);
      expect(await ports.reserve(b, { ...any, port })).toBe(port);
    });
  });

  it("takes over from a thing that is gone", async () => {
    await withFolder(async (folder) => {
      const ports = new PortReservations(join(folder, "ports"));
      const [a, b] = [await holder(folder, "a"), await holder(folder, "b")];
      const port = await ports.reserve(a, any);
      await rm(a, { recursive: true });
      expect(await ports.reserve(b, { ...any, port })).toBe(port);
    });
  });

  it("refuses a port that something listens on", async () => {
    await withFolder(async (folder) => {
      const server = createServer().listen(0, address);
      await once(server, "listening");
      const { port } = server.address() as { port: number };
      expect(await isFree("TCP", address, port)).toBe(false);
      const ports = new PortReservations(join(folder, "ports"));
      await expect(ports.reserve(await holder(folder, "a"), { ...any, port })).rejects.toThrow(PortTakenError);
      server.close();
    });
  });
});
