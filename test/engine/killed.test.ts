/**
 * A killed `up` at each named checkpoint: each next one adopts what was half made and gets further, the last one comes to the end,
 * and nothing exists twice.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { Fault } from "../fakes/world.js";
import { EngineProject } from "./project.js";

/** In the order in which an `up` reaches them. */
const checkpoints = [
  "marker-written",
  "registry-started",
  "image-pushed",
  "disk-created",
  "tpm-started",
  "qemu-started",
  "booted",
  "enrolled",
  "group-applied",
];
const cases: [Fault["action"], string[]][] = [
  ["kill-plugin", checkpoints],
  ["interrupt-plugin", checkpoints],
  ["kill-cli", checkpoints],
  ["interrupt-cli", checkpoints],
  ["fail", ["marker-written", "booted"]],
];

describe.each(cases)("%s", (action, points) => {
  let project: EngineProject;
  beforeAll(async () => {
    project = new EngineProject("stack");
    await project.init();
  });
  afterAll(() => project.remove());

  it.each(points)("at %s", async (checkpoint) => {
    project.world.setFaults({ checkpoint, action });
    const broken = await project.up();
    expect(project.world.faultsStruck, `the fault has struck: ${broken.output}`).toBe(true);
    expect(broken.exitCode, broken.output).not.toBe(0);
    project.clearLocks();
  });

  it("and the next up succeeds, with one of each thing", async () => {
    const repaired = await project.up();
    expect(repaired.exitCode, repaired.output).toBe(0);
    for (const kind of ["virtual-machines", "state-disks", "registries", "images", "host-images", "groups"] as const) {
      expect(
        project.world.list(kind).map((thing) => thing.id),
        kind,
      ).toHaveLength(1);
    }
    expect(project.world.list("virtual-machines").every((thing) => thing.finished)).toBe(true);
    expect((await project.changes()).map((step) => step.urn)).toEqual([]);
  });
});
