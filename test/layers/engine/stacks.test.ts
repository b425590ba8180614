/** Two stacks on one machine, what a preview shows before anything is lost, refusals, time-outs and cancellation. */
import { readdirSync, readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { EngineProject } from "./project.js";

const urnEnd = (urn: string): string => urn.slice(urn.lastIndexOf("::") + 2);
const kinds = ["virtual-machines", "state-disks", "registries", "groups"] as const;

describe("stacks", () => {
  const project = new EngineProject("stack", "one");
  const other = new EngineProject("stack", "two", { world: project.world, keys: project.keys });
  beforeAll(async () => {
    await Promise.all([
      project.init({ secret: "secret:canary-environment", password: "secret:canary-password" }),
      other.init(),
    ]);
  });
  afterAll(() => {
    other.remove();
    project.remove();
  });

  it("on one machine come up at the same time, each with its own resources", async () => {
    const results = await Promise.all([project.up(), other.up()]);
    for (const result of results) expect(result.exitCode, result.output).toBe(0);
    for (const kind of kinds) expect(project.world.list(kind), kind).toHaveLength(2);
    const owners = project.world.list("virtual-machines").map(({ owner }) => `${owner.backend} ${owner.stack}`);
    expect(new Set(owners).size).toBe(2);
  });

  it("are destroyed one by one, and the other keeps its resources", async () => {
    const destroyed = await other.destroy();
    expect(destroyed.exitCode, destroyed.output).toBe(0);
    for (const kind of kinds) expect(project.world.list(kind), kind).toHaveLength(1);
  });

  it("show in preview what is replaced together with a host, and what stays", async () => {
    await project.configure({ imageDigest: `sha256:${"c".repeat(64)}` });
    const steps = await project.preview();
    const operations = Object.fromEntries(
      steps.filter((step) => step.op !== "refresh" && step.op !== "same").map((step) => [urnEnd(step.urn), step.op]),
    );
    // The disk, with the groups' data, is not among them.
    expect(operations).toEqual({ machine: "replace", group: "replace" });
    const machine = steps.find((step) => step.op === "replace" && urnEnd(step.urn) === "machine");
    expect(machine?.detailedDiff?.["imageDigest"]?.kind).toBe("update-replace");
    await project.run(["config", "rm", "imageDigest", "--stack", project.stack]);
  });

  it.each([
    ["running", "c", /removing the group/],
    ["stopped", "d", /the host is stopped; it loses the group web when it starts again/],
  ])(
    "replace a machine that is %s, and a group that leaves with it does not come back from the disk",
    async (...row) => {
      const [powerState, digit, said] = row;
      project.world.disturb("virtual-machines", { powerState });
      await project.configure({ imageDigest: `sha256:${digit.repeat(64)}`, withoutGroup: "true" });
      const removed = await project.up();
      expect(removed.exitCode, removed.output).toBe(0);
      expect(removed.output).toMatch(said);
      expect(project.world.list("groups")).toEqual([]);
      await project.run(["config", "rm", "withoutGroup", "--stack", project.stack]);
      const back = await project.up();
      expect(back.exitCode, back.output).toBe(0);
    },
  );

  it("replace a stopped machine, and a group that stays in the program is there again, on the same host", async () => {
    const place = project.world.list("groups")[0]!.id;
    project.world.disturb("virtual-machines", { powerState: "stopped" });
    await project.run(["config", "rm", "imageDigest", "--stack", project.stack]);
    const replaced = await project.up();
    expect(replaced.exitCode, replaced.output).toBe(0);
    expect(project.world.list("groups").map(({ id }) => id)).toEqual([place]);
    expect(await project.changes()).toEqual([]);
  });

  it("do not remove a group from a machine that runs and does not answer", async () => {
    project.world.disturb("virtual-machines", { unreachable: true });
    await project.configure({ withoutGroup: "true" });
    const refused = await project.up("--refresh=false");
    expect(refused.exitCode).not.toBe(0);
    expect(refused.output).toMatch(/does not answer/);
    project.world.disturb("virtual-machines", { unreachable: false });
    expect(project.world.list("groups")).toHaveLength(1);
    await project.run(["config", "rm", "withoutGroup", "--stack", project.stack]);
    const next = await project.up();
    expect(next.exitCode, next.output).toBe(0);
  });

  it.each([
    ["memory", "512", "2048", /memoryMiB.*512.*1024/s],
    ["image", "nginx:latest", undefined, /containers\[0\]\.image.*nginx:latest.*digest/s],
  ])("are refused in preview when %s is %s", async (name, wrong, right, message) => {
    await project.configure({ [name]: wrong });
    const preview = await project.run(["preview", "--stack", project.stack]);
    expect(preview.exitCode).not.toBe(0);
    expect(preview.output).toMatch(message);
    if (right) await project.configure({ [name]: right });
    else await project.run(["config", "rm", name, "--stack", project.stack]);
  });

  it("keep a group that is not ready in time, with the reason; the next up repairs it", async () => {
    await project.configure({ command: '["/crash"]' });
    const broken = await project.up("--refresh=false");
    expect(broken.exitCode).not.toBe(0);
    expect(broken.output).toMatch(/container nginx: CrashLoopBackOff with exit code 1/);
    expect(broken.output).toMatch(/cannot open configuration/);
    expect((await project.state()).some((resource) => urnEnd(resource.urn) === "group")).toBe(true);
    // What crashed before is tried again, not given up at once.
    const restarts = (): number => Number(project.world.list("groups")[0]?.observed["restarts"]);
    const before = restarts();
    expect((await project.up()).exitCode).not.toBe(0);
    expect(restarts()).toBeGreaterThanOrEqual(before + 2);
    await project.run(["config", "rm", "command", "--stack", project.stack]);
    const repaired = await project.up();
    expect(repaired.exitCode, repaired.output).toBe(0);
  });

  it("end an operation at its time-out, and say so", async () => {
    await project.configure({ memory: "3072", updateTimeout: "2s" });
    project.world.setFaults({ checkpoint: "machine-updated", action: "hang" });
    const started = Date.now();
    const late = await project.up("--refresh=false");
    expect(project.world.faultsStruck, late.output).toBe(true);
    expect(late.exitCode, late.output).not.toBe(0);
    expect(late.output).toMatch(/did not come to its end within 2 s.*customTimeouts\.update/);
    expect(Date.now() - started).toBeLessThan(60_000);
  });

  it("are cancelled in the middle; no secret is in the plugin's arguments or environment meanwhile", async () => {
    await project.configure({ updateTimeout: "5m" });
    project.world.setFaults({ checkpoint: "machine-updated", action: "hang" });
    const up = project.up("--refresh=false");
    for (let tries = 0; tries < 600 && !project.world.faultsStruck; tries++) {
      await new Promise((resolve) => setTimeout(resolve, 100));
    }
    const plugin = processes().find(({ commandLine }) => commandLine.includes(project.world.directory));
    expect(plugin).toBeDefined();
    for (const canary of ["canary-environment", "canary-password"]) {
      expect(plugin!.commandLine.includes(canary)).toBe(false);
      expect(plugin!.environment.includes(canary)).toBe(false);
    }
    process.kill(plugin!.parent, "SIGINT");
    const cancelled = await up;
    expect(cancelled.exitCode).not.toBe(0);
    expect(processes().filter(({ commandLine }) => commandLine.includes(project.world.directory))).toEqual([]);

    const next = await project.up();
    expect(next.exitCode, next.output).toBe(0);
    expect(await project.changes()).toEqual([]);
    for (const kind of kinds) expect(project.world.list(kind), kind).toHaveLength(1);
  });
});

function processes(): { parent: number; commandLine: string; environment: string }[] {
  return readdirSync("/proc")
    .filter((name) => /^\d+$/.test(name))
    .flatMap((pid) => {
      try {
        const parent = /^PPid:\s+(\d+)/m.exec(readFileSync(`/proc/${pid}/status`, "utf8"))?.[1];
        return [
          {
            parent: Number(parent),
            commandLine: readFileSync(`/proc/${pid}/cmdline`, "utf8"),
            environment: readFileSync(`/proc/${pid}/environ`, "utf8"),
          },
        ];
      } catch {
        // It has ended meanwhile.
        return [];
      }
    });
}
