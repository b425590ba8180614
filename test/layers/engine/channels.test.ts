/**
 * A group whose image follows a channel, on the real engine: the pipeline that rolls owns the digest, and Pulumi never
 * restores an older one.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { rollGroup } from "../../support/fakes/agent.js";
import { setChannel } from "../../support/fakes/image-services.js";
import { EngineProject } from "./project.js";

const place = "registry.example/web/nginx:stable";
const digests = ["1", "2", "3", "4"].map((digit) => `sha256:${digit.repeat(64)}`);
const [first, second, third, fourth] = digests as [string, string, string, string];

/** What the host of a project is to run. */
function declared({ world }: EngineProject): string {
  const [group] = world.list<{ spec: { containers: { image: string; channel?: string }[] } }>("groups");
  return group!.spec.spec.containers[0]!.image.split("@")[1]!;
}

function roll({ world }: EngineProject, digest: string): void {
  rollGroup(world, world.list("groups")[0]!.id, digest);
}

/** The output of the state. */
async function imageDigest(project: EngineProject): Promise<unknown> {
  const group = (await project.state()).find(({ type }) => type === "palisade:index:GroupDeployment");
  return (group!.outputs!["observedContainers"] as { imageDigest: string }[])[0]!.imageDigest;
}

describe("a group that follows a channel", () => {
  const project = new EngineProject("stack");
  beforeAll(() => project.init({ channel: "stable" }));
  afterAll(() => project.remove());

  it("runs the image that the channel points to, and reports its digest", async () => {
    setChannel(project.world, place, first);
    const up = await project.up();
    expect(up.exitCode, up.output).toBe(0);
    expect(declared(project)).toBe(first);
    expect(await imageDigest(project)).toBe(first);
  });

  it("shows no change when the channel was moved and the group rolled, and refresh tells the digest that runs", async () => {
    setChannel(project.world, place, second);
    roll(project, second);
    expect(await project.changes()).toEqual([]);
    await project.expectSuccess(["refresh", "--yes", "--skip-preview", "--stack", project.stack]);
    expect(await imageDigest(project)).toBe(second);
  });

  it("keeps the running digest when the group changes otherwise, even if it is rolled during the update", async () => {
    setChannel(project.world, place, fourth);
    await project.configure({ command: '["/web"]' });
    const changes = await project.changes();
    expect(changes.map(({ detailedDiff }) => Object.keys(detailedDiff ?? {}))).toEqual([["containers[0].command"]]);
    project.world.scheduleRoll(third);
    const up = await project.up();
    expect(up.exitCode, up.output).toBe(0);
    expect(project.world.takeRoll(), "the roll came in between").toBeUndefined();
    expect(declared(project)).toBe(third);
    expect(await imageDigest(project)).toBe(third);
  });

  it("reports a roll as drift once the program names the digest", async () => {
    await project.configure({ channel: "", image: `registry.example/web/nginx@${third}` });
    expect((await project.up()).exitCode).toBe(0);
    setChannel(project.world, place, second);
    expect(await project.changes()).toEqual([]);
    roll(project, second);
    const [change] = await project.changes();
    expect(Object.keys(change!.detailedDiff ?? {})).toEqual(["containers[0].image"]);
  });
});
