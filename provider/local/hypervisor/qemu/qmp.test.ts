import { once } from "node:events";
import { createServer, type Socket } from "node:net";
import { mkdir, rename } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { withFolder } from "../../../system/testing.js";
import { Qmp, QmpTimeoutError } from "./qmp.js";

type Handler = (message: { execute: string; id: number; arguments?: unknown }, socket: Socket) => void;

/** A monitor that speaks as QEMU does, in a folder whose path is longer than a socket's may be. */
async function withMonitor(handler: Handler | undefined, work: (path: string) => Promise<void>): Promise<void> {
  await withFolder(async (root) => {
    const folder = join(root, "f".repeat(120));
    await mkdir(folder);
    const server = createServer((socket) => {
      socket.on("error", () => undefined);
      if (!handler) return;
      socket.write('{"QMP": {"version": {}, "capabilities": []}}\r\n');
      socket.on("data", (data: Buffer) => {
        for (const line of data.toString().split("\n").filter(Boolean)) handler(JSON.parse(line), socket);
      });
    });
    server.listen(join(root, "s"));
    await once(server, "listening");
    await rename(join(root, "s"), join(folder, "qmp.sock"));
    try {
      await work(join(folder, "qmp.sock"));
    } finally {
      server.close();
    }
  });
}

const answer: Handler = ({ execute, id }, socket) => {
  if (execute === "hang") return;
  socket.write('{"event": "RTC_CHANGE", "data": {}}\r\n');
  const result = execute === "bad" ? { error: { class: "GenericError", desc: "no such thing" } } : { return: execute };
  socket.write(JSON.stringify({ id, ...result }) + "\r\n");
};

describe("Qmp", () => {
  it("greets, executes, passes over events, and translates errors", async () => {
    await withMonitor(answer, async (path) => {
      await Qmp.session(path, async (qmp) => {
        expect(await qmp.execute("query-status")).toBe("query-status");
        await expect(qmp.execute("bad")).rejects.toThrow("QEMU: no such thing (GenericError)");
      });
    });
  });

  it("does not wait for ever for a QEMU that hangs", async () => {
    await withMonitor(undefined, async (path) => {
      await expect(Qmp.connect(path, 200)).rejects.toThrow(QmpTimeoutError);
    });
    await withMonitor(answer, async (path) => {
      await expect(Qmp.session(path, (qmp) => qmp.execute("hang"), 200)).rejects.toThrow(/no answer within 200 ms/);
    });
  });

  it("notices that QEMU goes away", async () => {
    await withMonitor(
      (message, socket) => (message.execute === "quit" ? socket.destroy() : answer(message, socket)),
      async (path) => {
        await expect(Qmp.session(path, (qmp) => qmp.execute("quit"))).rejects.toThrow(/closed the connection/);
      },
    );
  });
});
