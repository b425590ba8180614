/** A patched image that is published into a channel, taken over by a stack that does not know it. */
import { afterAll, beforeAll, expect, it } from "vitest";
import { EngineProject } from "./project.js";

const project = new EngineProject("patched-image");
const other = new EngineProject("patched-image", "other", { world: project.world, keys: project.keys });

beforeAll(async () => {
  await project.init({ channel: "stable" });
  const up = await project.up();
  expect(up.exitCode, up.output).toBe(0);
});
afterAll(() => {
  other.remove();
  project.remove();
});

it("is imported with its channel: the next preview shows no change, and another channel is a change", async () => {
  await other.init({ channel: "stable" });
  const ours = (await project.state()).filter(({ custom, type }) => custom && type.startsWith("palisade:"));
  expect(ours).toHaveLength(3);
  for (const { type, urn, id } of ours) {
    const name = urn.slice(urn.lastIndexOf("::") + 2);
    const quiet = ["--yes", "--skip-preview", "--generate-code=false", "--protect=false"];
    const imported = await other.run(["import", type, name, id!, ...quiet, "--stack", other.stack]);
    expect(imported.exitCode, `${type}: ${imported.output}`).toBe(0);
    expect(imported.output).not.toMatch(/failed to validate/);
  }
  expect((await other.changes()).map(({ urn, detailedDiff }) => [urn, detailedDiff])).toEqual([]);
  const found = (resources: Awaited<ReturnType<typeof other.state>>) =>
    resources.find(({ type }) => type === "palisade:index:PatchedImage")?.outputs?.["channelDigest"];
  expect(found(await other.state())).toBe(found(await project.state()));
  expect(found(await other.state())).toMatch(/^sha256:/);

  await other.configure({ channel: "testing" });
  const [change, ...more] = await other.changes();
  expect([Object.keys(change?.detailedDiff ?? {}), more]).toEqual([["channel"], []]);
});
