import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { EngineProject } from "./project.js";

const urnEnd = (urn: string): string => urn.slice(urn.lastIndexOf("::") + 2);

const withoutDebugMessages = (events: string): string =>
  events
    .split("\n")
    .filter((line) => line !== "")
    .filter((line) => {
      const event = JSON.parse(line) as { diagnosticEvent?: { severity: string } };
      return event.diagnosticEvent?.severity !== "debug";
    })
    .join("\n");

describe("a stack's life on the real engine", () => {
  const project = new EngineProject("stack");
  beforeAll(async () => {
    await project.init({ secret: "secret:canary-environment", password: "secret:canary-password", policyPort: "80" });
    const up = await project.up();
    expect(up.exitCode, up.output).toBe(0);
  });
  afterAll(() => project.remove());

  it("creates one of each resource", async () => {
    expect(project.world.list("virtual-machines")).toHaveLength(1);
    expect(project.world.list("state-disks")).toHaveLength(1);
    expect(project.world.list("registries")).toHaveLength(1);
    expect(project.world.list("groups")).toHaveLength(1);
    expect(project.world.list("network-policies")).toHaveLength(1);
  });

  it("changes nothing the second time", async () => {
    expect((await project.changes()).map((step) => step.urn)).toEqual([]);
  });

  it("shows a stopped machine as drift, and up repairs it", async () => {
    project.world.disturb("virtual-machines", { powerState: "stopped" });
    const changes = await project.changes();
    const machine = changes.find((step) => urnEnd(step.urn) === "machine");
    expect(Object.keys(machine?.detailedDiff ?? {})).toEqual(["powerState"]);
    // A stopped host runs no group: an observation, neither an error nor the group's absence.
    const group = changes.find((step) => urnEnd(step.urn) === "group");
    expect(Object.keys(group?.detailedDiff ?? {})).toEqual(["observedContainers[0].state"]);
    const up = await project.up();
    expect(up.exitCode, up.output).toBe(0);
    expect(project.world.list("virtual-machines")[0]?.observed["powerState"]).toBeUndefined();
    expect(project.world.list("virtual-machines")).toHaveLength(1);
    expect(await project.changes()).toEqual([]);
  });

  it("repairs what a restart of this machine has stopped", async () => {
    project.world.disturb("virtual-machines", { powerState: "stopped" });
    project.world.disturb("registries", { powerState: "stopped" });
    const changed = (await project.changes()).map((step) => urnEnd(step.urn));
    expect(changed).toEqual(expect.arrayContaining(["registry", "machine", "group"]));
    const up = await project.up();
    expect(up.exitCode, up.output).toBe(0);
    expect(await project.changes()).toEqual([]);
  });

  it("names property and value when a container was stopped by hand, and up repairs it", async () => {
    project.world.disturb("groups", { stopped: true });
    const preview = await project.run(["preview", "--diff", "--stack", project.stack]);
    expect(preview.output).toMatch(/observedContainers/);
    expect(preview.output).toMatch(/Terminated/);
    const up = await project.up();
    expect(up.exitCode, up.output).toBe(0);
    expect(await project.changes()).toEqual([]);
  });

  it("shows a network policy that the kernel does not hold as drift, and up repairs it", async () => {
    project.world.disturb("network-policies", {
      policyHash: "",
      problems: ["policy 1f: its map entries were changed"],
    });
    const [change, ...others] = await project.changes();
    expect([urnEnd(change!.urn), others]).toEqual(["network", []]);
    expect(Object.keys(change?.detailedDiff ?? {}).sort()).toEqual(["policyHash", "problems"]);
    const up = await project.up();
    expect(up.exitCode, up.output).toBe(0);
    expect(project.world.list("network-policies")[0]?.observed).toEqual({});
    expect(await project.changes()).toEqual([]);
  });

  it("changes a network policy in place, and names the rule in preview", async () => {
    await project.configure({ policyPort: "81" });
    const [change, ...others] = await project.changes();
    expect([change?.op, others]).toEqual(["update", []]);
    const rule = "policy.endpoints[0].ingress.rules[0]";
    expect(Object.keys(change?.detailedDiff ?? {}).sort()).toEqual([
      `${rule}.portEnd`,
      `${rule}.portStart`,
      "policy.hash",
    ]);
    const up = await project.up();
    expect(up.exitCode, up.output).toBe(0);
    // Back with the next up.
    await project.configure({ policyPort: "80" });
  });

  it("restarts the machine for memory, and says so in preview", async () => {
    await project.configure({ memory: "4096" });
    const preview = await project.run(["preview", "--diff", "--stack", project.stack]);
    expect(preview.output).toMatch(/memoryMiB/);
    expect(preview.output).toMatch(/restart/);
    expect(preview.output).not.toMatch(/replac/);
    const up = await project.up();
    expect(up.exitCode, up.output).toBe(0);
  });

  it("refuses to shrink the disk, before anything changes", async () => {
    await project.configure({ diskSize: "4" });
    const preview = await project.run(["preview", "--stack", project.stack]);
    expect(preview.exitCode).not.toBe(0);
    expect(preview.output).toMatch(/sizeGiB/);
    await project.configure({ diskSize: "8" });
  });

  it("tells unreachable and foreign hosts apart, and keeps both in the state", async () => {
    project.world.disturb("virtual-machines", { unreachable: true });
    const unreachable = await project.run(["refresh", "--yes", "--skip-preview", "--stack", project.stack]);
    expect(unreachable.exitCode).not.toBe(0);
    expect(unreachable.output).toMatch(/does not answer/);
    project.world.disturb("virtual-machines", { unreachable: false, foreign: true });
    const foreign = await project.run(["refresh", "--yes", "--skip-preview", "--stack", project.stack]);
    expect(foreign.exitCode).not.toBe(0);
    expect(foreign.output).toMatch(/another host answers/);
    project.world.disturb("virtual-machines", { foreign: false });
    expect((await project.state()).map((resource) => urnEnd(resource.urn))).toEqual(
      expect.arrayContaining(["machine", "group"]),
    );
  });

  it("recreates a machine that is gone on the disk that is left, with its groups", async () => {
    const [machine] = project.world.list("virtual-machines");
    const groups = project.world.list("groups").map(({ id }) => id);
    project.world.remove("virtual-machines", machine!.id);
    const up = await project.up();
    expect(up.exitCode, up.output).toBe(0);
    expect(project.world.list("virtual-machines")).toHaveLength(1);
    expect(project.world.list("groups").map(({ id }) => id)).toEqual(groups);
    expect(await project.changes()).toEqual([]);
  });

  it("keeps every secret out of state, history, plans and files", async () => {
    // From level 9 on the engine itself logs what it exchanges with plugins, in clear; SECURITY.md says so.
    const verbose = ["-v=8", "--logtostderr"];
    const exported = await project.expectSuccess(["stack", "export", "--stack", project.stack]);
    // Written below the project, where all files are searched.
    const events = path.join(project.root, "events.json");
    const log = await project.up(...verbose);
    expect(log.exitCode, log.output.slice(-2000)).toBe(0);
    // The command line has --event-log only with its debug commands on.
    await project.expectSuccess(["up", "--yes", "--skip-preview", "--stack", project.stack, "--event-log", events], {
      PULUMI_DEBUG_COMMANDS: "true",
    });
    expect(project.files().get(events)).toMatch(/resOutputsEvent/);
    // What the program is given as a secret, the engine keeps out of every message.
    for (const canary of ["canary-environment", "canary-password"]) {
      expect(log.output.includes(canary), `${canary} in the log`).toBe(false);
    }
    // What a resource makes up itself, Pulumi's SDK logs from level 3 on; it is looked for everywhere else.
    const registryPassword = String(project.world.list("registries")[0]?.observed["password"]);
    for (const canary of ["canary-environment", "canary-password", registryPassword]) {
      expect(exported.stdout).not.toContain(canary);
      for (const [file, content] of project.files()) {
        // The world stands for the machine, which has to know its own registry's password.
        if (file.startsWith(project.world.directory) && canary === registryPassword) continue;
        // The SDK's debug messages are events, too.
        const searched = file === events && canary === registryPassword ? withoutDebugMessages(content) : content;
        expect(searched.includes(canary), `${canary} in ${file}`).toBe(false);
      }
    }
  });

  it("imports each resource into an empty stack, and the next preview shows no change", async () => {
    const state = await project.state();
    const other = new EngineProject("stack", "test", { world: project.world, keys: project.keys });
    try {
      await other.init({
        secret: "secret:canary-environment",
        password: "secret:canary-password",
        policyPort: "80",
        memory: "4096",
      });
      for (const resource of state.filter((one) => one.custom && one.type.startsWith("palisade:"))) {
        const imported = await other.run([
          "import",
          resource.type,
          urnEnd(resource.urn),
          resource.id ?? "",
          "--yes",
          "--skip-preview",
          "--generate-code=false",
          "--protect=false",
          "--stack",
          other.stack,
        ]);
        expect(imported.exitCode, `${resource.type}: ${imported.output}`).toBe(0);
        expect(imported.output).not.toMatch(/failed to validate/);
      }
      const changes = await other.changes();
      expect(changes.map((step) => [step.op, urnEnd(step.urn), step.detailedDiff])).toEqual([]);
    } finally {
      other.remove();
    }
  });

  it("does not destroy a protected disk", async () => {
    await project.configure({ protect: "true" });
    expect((await project.up()).exitCode).toBe(0);
    const destroyed = await project.destroy();
    expect(destroyed.exitCode).not.toBe(0);
    expect(destroyed.output).toMatch(/protect/);
    expect(project.world.list("state-disks")).toHaveLength(1);
    await project.configure({ protect: "false" });
    expect((await project.up()).exitCode).toBe(0);
  });

  it("destroys an unreachable host only by force", async () => {
    project.world.disturb("virtual-machines", { unreachable: true });
    const refused = await project.destroy("--refresh=false");
    expect(refused.exitCode).not.toBe(0);
    expect(refused.output).toMatch(/forceDestroy/);
    project.world.disturb("virtual-machines", { unreachable: false });
    await project.configure({ force: "true" });
    expect((await project.up()).exitCode).toBe(0);
    project.world.disturb("virtual-machines", { unreachable: true });
    const destroyed = await project.destroy("--refresh=false");
    expect(destroyed.exitCode, destroyed.output).toBe(0);
    for (const kind of ["virtual-machines", "state-disks", "registries"] as const) {
      expect(project.world.list(kind)).toEqual([]);
    }
  });
});
