/**
 * A killed `up` at each named checkpoint, an interrupted one at three (with PALISADE_FULL=1 at each): each next one
 * adopts what was half made and gets further, the last one comes to the end, and nothing exists twice.
 */
import { existsSync, writeFileSync } from "node:fs";
import path from "node:path";
import { expect, it } from "vitest";
import type { Fault, Kind } from "../../support/fakes/world.js";
import { EngineProject } from "./project.js";

/** A program, the checkpoints in the order in which an `up` of it reaches them, and what there is one of at the end. */
interface Job {
  program: string;
  checkpoints: string[];
  kinds: Kind[];
}

const host: Job = {
  program: "stack",
  checkpoints: [
    ...["marker-written", "registry-started", "image-built", "image-pushed", "disk-created"],
    ...["tpm-started", "qemu-started", "booted", "enrolled", "group-applied", "network-policy-applied", "group-ready"],
  ],
  kinds: ["virtual-machines", "state-disks", "registries", "images", "host-images", "groups", "network-policies"],
};
const image: Job = {
  program: "patched-image",
  checkpoints: ["image-scanned", "image-patched", "layer-sealed", "seal-published", "channel-moved"],
  kinds: ["registries", "images", "patches", "seals", "channels"],
};

/** First, middle and last of them. */
const three = (list: string[]): string[] => [list[0]!, list[Math.floor(list.length / 2)]!, list.at(-1)!];
/**
 * What a checkpoint leaves behind does not depend on which process is ended; only kills are tried at every checkpoint.
 */
const sampled = (job: Job): Job =>
  process.env["PALISADE_FULL"] ? job : { ...job, checkpoints: three(job.checkpoints) };

const cases: (Job & { action: Fault["action"] })[] = [
  ...(["kill-cli", "kill-plugin"] as const).flatMap((action) => [host, image].map((job) => ({ ...job, action }))),
  ...(["interrupt-cli", "interrupt-plugin"] as const).flatMap((action) =>
    [host, image].map((job) => ({ ...sampled(job), action })),
  ),
  { ...host, action: "fail", checkpoints: ["marker-written", "booted"] },
];

// Side by side: a killed `up` waits more than it computes.
it.concurrent.each(cases)(
  "$action: $program",
  async ({ action, program, checkpoints, kinds }) => {
    const project = new EngineProject(program);
    try {
      await project.init(program === "stack" ? { policyPort: "80" } : { channel: "stable" });
      for (const checkpoint of checkpoints) {
        project.world.setFaults({ checkpoint, action });
        let broken = await project.up();
        if (!project.world.faultsStruck) {
          // A run that ended gracefully has finished what was in flight beside its fault, this too: begin with nothing.
          const destroyed = await project.destroy();
          expect(destroyed.exitCode, destroyed.output).toBe(0);
          broken = await project.up();
        }
        expect(project.world.faultsStruck, `${checkpoint} was reached: ${broken.output}`).toBe(true);
        expect(broken.exitCode, `${checkpoint}: ${broken.output}`).not.toBe(0);
        await project.recover();
      }
      const repaired = await project.up();
      expect(repaired.exitCode, repaired.output).toBe(0);
      for (const kind of kinds) {
        const ids = project.world.list(kind).map((thing) => thing.id);
        expect(ids, kind).toHaveLength(1);
      }
      expect(project.world.list("virtual-machines").every((thing) => thing.finished)).toBe(true);
      expect((await project.changes()).map((step) => step.urn)).toEqual([]);
    } finally {
      project.remove();
    }
  },
  600_000,
);

it("Pulumi refuses state attributes that a kill has cut off until they are removed", async () => {
  const project = new EngineProject("stack");
  try {
    await project.init();
    const state = path.join(project.backend, ".pulumi/stacks/engine-test", `${project.stack}.json`);
    expect(existsSync(`${state}.attrs`)).toBe(true);
    writeFileSync(`${state}.attrs`, "");
    expect((await project.preview().catch(String)) as string).toMatch(/failed to load checkpoint: EOF/);
    await project.recover();
    expect(await project.preview()).not.toEqual([]);
  } finally {
    project.remove();
  }
});
