/**
 * Ephemeral stacks on the real engine and the real plugin, with disks only: what is made, and that nothing of it stays.
 */
import { spawn, spawnSync, type ChildProcess } from "node:child_process";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync, writeFileSync } from "node:fs";
import { homedir, tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { StateDisk } from "../../../components/index.js";
import { ephemeralBackend, ephemeralFolder } from "../../../components/internal/ephemeral.js";
import { createLocalBackends } from "../../../provider/local/index.js";
import { ephemeralStack } from "../../../components/testing/index.js";
import { operation } from "../contract/subject.js";
import { namesIn } from "../../support/directory.js";
import { eventually, isAlive, repository } from "../../support/hosts/environment.js";

const before = { ...process.env };
let state = "";

beforeEach(() => {
  state = mkdtempSync(path.join(tmpdir(), "palisade-ephemeral-"));
  const cache = process.env["PALISADE_CACHE"] ?? path.join(homedir(), ".cache/palisade");
  process.env["PALISADE_STATE"] = state;
  process.env["PATH"] = [path.join(repository, "build/bin"), path.join(cache, "bin"), before["PATH"]].join(":");
});
afterEach(() => {
  process.env = { ...before };
  rmSync(state, { recursive: true, force: true });
});

const things = (folder: string) => namesIn(path.join(state, folder)).filter((name) => !name.startsWith("."));
const disks = () => things("state-disks");
const stacks = () => things("ephemeral");

const program = async () => {
  const disk = new StateDisk("disk", { sizeGiB: 1 });
  return { disk: disk.id };
};

const reap = (...args: string[]) =>
  spawnSync(path.join(repository, "bin/palisade"), ["reap", ...args], { encoding: "utf8", env: process.env });

interface Runner {
  process: ChildProcess;
  id: string;
  disk: string;
}

/** A runner of its own, at the point where its stack is up. */
async function runner(): Promise<Runner> {
  const file = path.join(repository, "dist/test/layers/engine/programs/ephemeral-runner.js");
  const child = spawn(process.execPath, [file], { env: process.env, stdio: ["ignore", "pipe", "inherit"] });
  const line = await new Promise<string>((resolve, reject) => {
    createInterface({ input: child.stdout }).once("line", resolve);
    child.once("exit", (code) => reject(new Error(`the runner ended with ${code}`)));
  });
  return { process: child, ...(JSON.parse(line) as { id: string; disk: string }) };
}

/** The process that waits for the end of a stack's runner. */
function guardOf(id: string): number {
  for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
    try {
      if (readFileSync(`/proc/${pid}/cmdline`, "utf8").includes(`--when-runner-ends\0${id}`)) return Number(pid);
    } catch {
      // It has ended meanwhile.
    }
  }
  throw new Error(`${id} has no guard`);
}

describe("ephemeralStack", () => {
  it("gives the program's outputs, a backend and a passphrase of its own, and removes all of it", async () => {
    const stack = await ephemeralStack(program);
    expect(disks()).toEqual([stack.outputs["disk"]]);
    const folder = ephemeralFolder(stack.id);
    expect(statSync(path.join(folder, "passphrase")).mode & 0o777).toBe(0o600);
    expect(statSync(folder).mode & 0o777).toBe(0o700);
    const marker = readFileSync(path.join(state, "state-disks", disks()[0]!, "marker.json"), "utf8");
    expect((JSON.parse(marker) as { owner: { backend: string } }).owner.backend).toBe(ephemeralBackend(stack.id));
    const changed = async () => ({ size: new StateDisk("disk", { sizeGiB: 2 }).sizeGiB });
    expect(await stack.up(changed)).toEqual({ size: 2 });
    expect(stack.outputs).toEqual({ size: 2 });
    await stack.destroy();
    expect([disks(), stacks()]).toEqual([[], []]);
    await stack.destroy();
  });

  it("keeps secrets of the configuration out of everything but the program", async () => {
    const { Config, secret } = await import("@pulumi/pulumi");
    const value = "a-secret-that-nobody-finds";
    const stack = await ephemeralStack(async () => ({ token: secret(new Config().require("token")) }), {
      project: "shop",
      config: { token: { value, secret: true } },
    });
    try {
      expect(stack.outputs["token"]).toBe(value);
      const found = spawnSync("grep", ["-rla", value, ephemeralFolder(stack.id)], { encoding: "utf8" });
      expect(found.stdout).toBe("");
    } finally {
      await stack.destroy();
    }
  });

  it("destroys what a failed up has made, and says why it failed", async () => {
    const failing = ephemeralStack(async () => {
      new StateDisk("disk", { sizeGiB: 1 });
      new StateDisk("refused", { sizeGiB: 0 });
    });
    await expect(failing).rejects.toThrow(/sizeGiB/);
    expect([disks(), stacks()]).toEqual([[], []]);
  });

  it("keeps a failed stack when asked to, until it is asked to remove it", async () => {
    const failing = ephemeralStack(
      async () => {
        await new Promise<void>((resolve) => new StateDisk("disk", { sizeGiB: 1 }).id.apply(() => resolve()));
        throw new Error("the test fails on purpose");
      },
      { keepOnFailure: true },
    );
    await expect(failing).rejects.toThrow(/the test fails on purpose[\s\S]*palisade reap --kept/);
    expect([disks().length, stacks().length]).toEqual([1, 1]);
    // The runner seems to have ended.
    const file = path.join(state, "ephemeral", stacks()[0]!, "marker.json");
    const marker = JSON.parse(readFileSync(file, "utf8")) as { runner: { startTime: string } };
    writeFileSync(file, JSON.stringify({ ...marker, runner: { ...marker.runner, startTime: "1" } }));
    expect(reap().status).toBe(0);
    expect(disks()).toHaveLength(1);
    expect(reap("--kept").status).toBe(0);
    expect([disks(), stacks()]).toEqual([[], []]);
  });

  it("refuses options that make no sense before anything exists", async () => {
    await expect(ephemeralStack(program, { project: "a/b" })).rejects.toThrow(/project: "a\/b"/);
    await expect(ephemeralStack(program, { timeoutSeconds: 0 })).rejects.toThrow(/timeoutSeconds: 0/);
    expect(stacks()).toEqual([]);
  });
});

describe("a runner that ends without its afterAll", () => {
  it("leaves nothing behind, whatever signal ended it, and harms no neighbour", async () => {
    const signals = ["SIGKILL", "SIGTERM", "SIGINT"] as const;
    const [other, ...ended] = await Promise.all([runner(), runner(), runner(), runner()]);
    try {
      expect(disks().sort()).toEqual([other, ...ended].map(({ disk }) => disk).sort());
      for (const [index, signal] of signals.entries()) ended[index]!.process.kill(signal);
      await eventually("their stacks are gone", 120, async () => (stacks().length > 1 ? undefined : true));
      expect([disks(), stacks()]).toEqual([[other.disk], [other.id]]);
    } finally {
      other.process.kill("SIGKILL");
      await eventually("the stack of the other runner is gone", 60, async () =>
        stacks().length > 0 ? undefined : true,
      );
    }
  });

  it("is cleaned up by the next runner when its guard was killed as well", async () => {
    const killed = await runner();
    process.kill(guardOf(killed.id), "SIGKILL");
    killed.process.kill("SIGKILL");
    await eventually("the process has ended", 10, async () => (isAlive(killed.process.pid!) ? undefined : true));
    expect(disks(), "nobody is left to remove it").toEqual([killed.disk]);
    const next = await ephemeralStack(program);
    try {
      expect([disks(), stacks()]).toEqual([[next.outputs["disk"]], [next.id]]);
    } finally {
      await next.destroy();
    }
  });

  it("also loses a disk that no stack knows: its ownership marker names the owner", async () => {
    const killed = await runner();
    process.kill(guardOf(killed.id), "SIGKILL");
    killed.process.kill("SIGKILL");
    const { hypervisor } = createLocalBackends({ stateDirectory: state, cacheDirectory: state });
    const of = (backend: string) => {
      const op = operation("half made", "marker-written");
      return { ...op, owner: { ...op.owner, backend } };
    };
    // Broken off by the death of Pulumi, and of somebody else.
    await expect(
      hypervisor("local").createStateDisk(of(ephemeralBackend(killed.id)), { sizeGiB: 1 }),
    ).rejects.toThrow();
    await expect(hypervisor("local").createStateDisk(of("file:///a/neighbour"), { sizeGiB: 1 })).rejects.toThrow();
    expect(disks()).toHaveLength(3);
    await eventually("the process has ended", 10, async () => (isAlive(killed.process.pid!) ? undefined : true));
    const { status, stdout, stderr } = reap();
    expect(status, stderr).toBe(0);
    expect(stdout).toMatch(/removed by ownership marker: disk-/);
    expect(stacks()).toEqual([]);
    const [left] = disks();
    expect(readFileSync(path.join(state, "state-disks", left!, "marker.json"), "utf8")).toContain(
      "file:///a/neighbour",
    );
  });

  it("loses its stack even if a dead Pulumi has locked it", async () => {
    const killed = await runner();
    const locks = path.join(ephemeralFolder(killed.id), "backend/.pulumi/locks/organization/ephemeral", killed.id);
    mkdirSync(locks, { recursive: true });
    const lock = { pid: 2 ** 22 + 1, username: "root", hostname: "here", timestamp: new Date().toISOString() };
    writeFileSync(path.join(locks, "5a3b.json"), JSON.stringify(lock));
    killed.process.kill("SIGKILL");
    await eventually("its stack is gone", 60, async () => (stacks().length > 0 ? undefined : true));
    expect(disks()).toEqual([]);
  });
});
