/** A killed `up` at each named checkpoint: the next one succeeds, and nothing exists twice. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Fault } from "../fakes/world.js";
import { EngineProject } from "./project.js";

const checkpoints = [
  "registry-started",
  "image-pushed",
  "disk-created",
  "marker-written",
  "tpm-started",
  "qemu-started",
  "booted",
  "enrolled",
  "group-applied",
];
const actions: Fault["action"][] = ["kill-plugin", "kill-cli", "interrupt-cli", "fail"];

describe.each(actions)("%s", (action) => {
  let project: EngineProject;
  beforeAll(async () => {
    project = new EngineProject("stack");
    await project.init();
  });
  afterAll(() => project.remove());

  it.each(checkpoints)("at %s", async (checkpoint) => {
    project.world.setFaults({ checkpoint, action });
    const broken = await project.up();
    expect(broken.exitCode, broken.output).not.toBe(0);
    expect(project.world.faultsStruck, "the fault has struck").toBe(true);
    project.clearLocks();

    const repaired = await project.up();
    expect(repaired.exitCode, repaired.output).toBe(0);
    for (const kind of ["virtual-machines", "state-disks", "registries", "images"] as const) {
      const urns = project.world.list(kind).map((thing) => thing.owner.urn);
      expect(urns, kind).toHaveLength(1);
    }
    const destroyed = await project.destroy();
    expect(destroyed.exitCode, destroyed.output).toBe(0);
    expect(project.world.list("virtual-machines")).toEqual([]);
  });
});
