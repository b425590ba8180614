/** How a boot is watched, and what is said of one that fails, on files and sockets in place of a machine. */
import { appendFile, readFile, writeFile } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { describe, expect, it } from "vitest";
import { GetHostResponseSchema } from "../../../hosts/api/gen/palisade/agent/v1/agent_pb.js";
import { ForeignHostError, UnreachableHostError } from "../../backends/index.js";
import { testOperation, testOwner, withFolder } from "../../system/testing.js";
import { readAuthority } from "../certificates/authority.js";
import { makeAuthority, makeRequest } from "../certificates/testing.js";
import { bounded } from "../../system/time.js";
import { bootPatience, StalledBootError, untilReady, type BootingMachine } from "./boot.js";
import { IdentityRecords } from "./identity-records.js";
import { HypervisorMarkers } from "./markers.js";

const lines = (count: number) => Array.from({ length: count }, (_, index) => `console line ${index + 1}.`).join("\n");

/** Watches a machine that has printed 30 lines and is changed by `change`; returns the error, or undefined. */
async function watch(change: Partial<BootingMachine>, milliseconds = 5000) {
  return withFolder(async (folder) => {
    const [serialLog, qemuLog] = [join(folder, "serial.log"), join(folder, "qemu.log")];
    await writeFile(serialLog, `${lines(30)}\n`);
    await writeFile(qemuLog, "qemu: a warning\n");
    const op = testOperation("machine", { milliseconds });
    const machine: BootingMachine = {
      ...{ id: "vm-1", serialLog, serialOffset: 0, qemuLog, enrollmentSocket: join(folder, "none.sock") },
      enrollment: {} as BootingMachine["enrollment"],
      stallMilliseconds: 60_000,
      isRunning: async () => true,
      askAgent: () => Promise.reject(new UnreachableHostError("no answer")),
      ...change,
    };
    const { signal, end } = bounded(op, "vm-1");
    try {
      const failure = await untilReady(op, machine, signal).then(
        () => undefined,
        (error: Error) => error,
      );
      return { failure, serialLog, qemuLog, status: op.lines };
    } finally {
      end();
    }
  });
}

/** The end of the console and its file, and the same of QEMU's own log. */
function expectLogs({ failure, serialLog, qemuLog }: Awaited<ReturnType<typeof watch>>): void {
  expect(failure?.message).toContain(`(${serialLog})`);
  expect(failure?.message).toMatch(/console line 16\.\n.*console line 30\./s);
  expect(failure?.message).not.toContain("console line 15.");
  expect(failure?.message).toContain(`(${qemuLog}):\nqemu: a warning`);
}

describe("a boot that fails", () => {
  it("says that QEMU ended, with the last lines of console and log", async () => {
    const seen = await watch({ isRunning: async () => false });
    expect(seen.failure?.message).toMatch(/^vm-1: QEMU ended while the host booted\n/);
    expectLogs(seen);
  });

  it("is stalled when nothing is heard of it, with the same", async () => {
    const seen = await watch({ stallMilliseconds: 100 });
    expect(seen.failure).toBeInstanceOf(StalledBootError);
    expect(seen.failure?.message).toMatch(/no agent and no console output for 0 s/);
    expectLogs(seen);
  });

  it("is stalled when the agent stays unready, with the agent's own reason", async () => {
    const host = create(GetHostResponseSchema, { ready: false, readyMessage: "containerd does not start" });
    const seen = await watch({ stallMilliseconds: 100, askAgent: async () => host });
    expect(seen.failure).toBeInstanceOf(StalledBootError);
    expect(seen.failure?.message).toMatch(/the agent is not ready: containerd does not start/);
    expectLogs(seen);
  });

  it("tells at the end of its time how far it came", async () => {
    const seen = await watch({}, 300);
    expect(seen.failure?.message).toMatch(/not done in time; what was made so far is kept/);
    expectLogs(seen);
  });

  it("ends without a certificate when the host claims the id of another disk", async () => {
    await withFolder(async (folder) => {
      const markers = new HypervisorMarkers(folder);
      const { disks } = markers;
      const hostId = "host-0123456789abcdef";
      await disks.adoptOrCreate(testOwner("victim"), { sizeGiB: 1 }, { created: true, hostId });
      const { id } = await disks.adoptOrCreate(testOwner("fresh"), { sizeGiB: 1 }, { created: true });
      const file = join(disks.folder(id), "marker.json");
      const before = await readFile(file, "utf8");
      const certificateRequest = (await makeRequest(hostId)).pem;
      let answer = "";
      const guest = createServer((socket) => {
        socket.on("data", (data: Buffer) => (answer += data.toString()));
        socket.on("error", () => undefined);
        socket.write(`${JSON.stringify({ hostId, certificateRequest, reason: "initial" })}\n`);
      });
      const enrollmentSocket = join(folder, "guest.sock");
      guest.listen(enrollmentSocket);
      const refused: string[] = [];
      const enrollment = {
        authority: await readAuthority(await makeAuthority(folder)),
        record: new IdentityRecords(markers).ofDisk(id),
        refuse: (reason: string) => void refused.push(reason),
      };
      // The machine ends when the host has its answer.
      const isRunning = async () => !answer.includes("\n");
      const seen = await watch({ enrollmentSocket, enrollment, isRunning }, 60_000);
      guest.close();
      expect(seen.failure?.message).toMatch(/QEMU ended/);
      expect(refused).toEqual([expect.stringContaining(`host ${hostId} asks for a certificate from state disk ${id}`)]);
      expect(JSON.parse(answer)).toMatchObject({ error: refused[0] });
      expect(answer).not.toContain("BEGIN CERTIFICATE");
      expect(await readFile(file, "utf8")).toBe(before);
    });
  });

  it("is another host's when another host answers", async () => {
    const { failure } = await watch({ askAgent: () => Promise.reject(new ForeignHostError("another host answers")) });
    expect(failure).toBeInstanceOf(ForeignHostError);
  });
});

describe("a boot", () => {
  it("is shown as it goes, and over when the agent says that it is ready", async () => {
    await withFolder(async (folder) => {
      const serialLog = join(folder, "serial.log");
      await writeFile(serialLog, "what an earlier start said\n");
      const answers = [undefined, undefined, { ready: false, readyMessage: "starting containerd" }, { ready: true }];
      const console = ["BdsDxe: loading Boot0001", "palisade-initrd: root abc opened", "systemd[1]: started"];
      const seen = await watch({
        serialLog,
        serialOffset: 27,
        askAgent: async () => {
          const line = console.shift();
          if (line !== undefined) await appendFile(serialLog, `${line}\n`);
          const answer = answers.shift();
          return answer && create(GetHostResponseSchema, answer);
        },
      });
      expect(seen.failure).toBeUndefined();
      const shown = seen.status.map((line) => line.replace(/ \(\d+ s\)$/, ""));
      expect(shown).toEqual(["booting: starting", "booting: firmware", "agent: starting containerd"]);
    });
  });
});

describe("a machine that runs and does not answer", () => {
  const minute = 60_000;
  it.each<[string, Partial<Parameters<typeof bootPatience>[0]>, number]>([
    ["was just started, before the console says anything", { age: 1000, silence: 9 * minute }, 15 * minute],
    ["boots, with a console that is quiet for a while", { age: 6 * minute, silence: 3 * minute }, 15 * minute],
    ["boots under KVM, which is never quiet for that long", { age: 6 * minute, silence: 3 * minute, stall: minute }, 0],
    ["hangs in its boot", { age: 6 * minute, silence: 5 * minute }, 0],
    ["has booted for longer than any host", { age: 20 * minute, silence: minute }, 0],
    ["was ready, and is silent", { age: 2 * minute, silence: minute, hasBooted: true }, 0],
    ["was ready, and starts again from inside", { age: 60 * minute, silence: 1000, hasBooted: true }, 2 * minute],
  ])("%s", (_name, signs, expected) => {
    expect(bootPatience({ age: 0, silence: 0, hasBooted: false, stall: 4 * minute, ...signs })).toBe(expected);
  });
});
