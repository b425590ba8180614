/** Groups that follow a channel, over gRPC. The same with Pulumi's engine: test/layers/engine/channels.test.ts. */
import { afterAll, beforeAll, expect, it } from "vitest";
import { rollGroup } from "../../test/support/fakes/agent.js";
import { setChannel } from "../../test/support/fakes/image-services.js";
import type { Properties } from "../protocol/resource.js";
import { Fixture, type Made, type State } from "./testing.js";

const [first, second, third] = ["1", "2", "3"].map((digit) => `sha256:${digit.repeat(64)}`) as [string, string, string];
const repository = "registry.example/web";

const fixture = new Fixture();
let group: Made;
beforeAll(async () => {
  await fixture.start();
  group = (await fixture.makeAll()).find(({ type }) => type.endsWith("GroupDeployment"))!;
  // This policy would refuse the images of the tests, as it names only the repository of the fixture's own group.
  for (const { id } of fixture.world.list("image-policies")) fixture.world.remove("image-policies", id);
});
afterAll(() => fixture.stop());

/** The inputs of the group under another name, with a container that follows a channel. */
function following(name: string, channel = name): Properties {
  const [{ image: _pinned, ...container }] = group.given["containers"] as [Properties];
  const containers = [{ ...container, imageChannel: { repository, channel } }];
  return { ...group.given, name, ports: [], containers };
}

const lead = (channel: string, digest: string) => setChannel(fixture.world, `${repository}:${channel}`, digest);

const running = ({ outputs }: Pick<State, "outputs">) =>
  (outputs["observedContainers"] as Properties[]).map(({ image, imageDigest }) => [image, imageDigest]);

async function refreshed({ type, state }: Made): Promise<State> {
  const { id, inputs, outputs } = await fixture.client.read(type, state.id, state);
  return { id, inputs: inputs.properties, outputs: outputs.properties };
}

const paths = async ({ type, state }: Made, seen: State): Promise<string[]> => {
  const found: string[] = [];
  const diff = await fixture.client.diff(type, state.id, seen, state.inputs);
  diff.getDetaileddiffMap().forEach((_diff: unknown, path: string) => void found.push(path));
  return found;
};

it("refuses a channel that is not there by its path, and previews it", async () => {
  const given = following("absent");
  await expect(fixture.make("GroupDeployment", given)).rejects.toThrow(
    /registry\.example\/web has no channel absent; publish an image into it first/,
  );
  const { inputs } = await fixture.client.check(group.type, given);
  const preview = await fixture.client.create(group.type, inputs.properties, { preview: true });
  expect(preview.id).toBe("");
});

it("takes over the half-made group of an earlier create with what runs in it", async () => {
  lead("adopted", first);
  const one = await fixture.make("GroupDeployment", following("adopted"));
  expect(running(one.state)).toEqual([[`${repository}@${first}`, first]]);
  lead("adopted", second);
  expect(running((await fixture.make("GroupDeployment", following("adopted"))).state)).toEqual(running(one.state));
});

it("takes the new channel's digest when the program names another channel", async () => {
  lead("one", first);
  lead("two", second);
  const one = await fixture.make("GroupDeployment", following("one"));
  const { inputs } = await fixture.client.check(one.type, following("one", "two"));
  const updated = await fixture.client.update(one.type, one.state.id, one.state, inputs.properties);
  expect(running({ outputs: updated.properties })).toEqual([[`${repository}@${second}`, second]]);
});

it("shows a channel that was changed on the host as drift, and no roll", async () => {
  lead("drift", first);
  const one = await fixture.make("GroupDeployment", following("drift"));
  rollGroup(fixture.world, one.state.id, third);
  expect(await paths(one, await refreshed(one))).toEqual([]);
  const stored = fixture.world.get<{ spec: { containers: { channel: string }[] } }>("groups", one.state.id)!;
  stored.spec.spec.containers[0]!.channel = "other";
  fixture.world.put("groups", stored);
  expect(await paths(one, await refreshed(one))).toEqual(["containers[0].imageChannel.channel"]);
});

it("is imported as following its channel", async () => {
  lead("imported", first);
  const one = await fixture.make("GroupDeployment", following("imported"));
  const { inputs, outputs } = await fixture.client.read(one.type, one.state.id);
  const seen = { id: one.state.id, inputs: inputs.properties, outputs: outputs.properties };
  expect(await paths(one, seen)).toEqual([]);
});

it("gives up when a group is rolled again and again", async () => {
  lead("busy", first);
  const one = await fixture.make("GroupDeployment", following("busy"));
  const changed = following("busy");
  const [container] = changed["containers"] as [Properties];
  const { inputs } = await fixture.client.check(one.type, {
    ...changed,
    containers: [{ ...container, command: ["/web"] }],
  });
  const take = fixture.world.takeRoll.bind(fixture.world);
  let rolls = 0;
  // Each time it is declared, another client has changed it before.
  fixture.world.takeRoll = () => (rolls++ % 2 === 0 ? second : third);
  try {
    await expect(fixture.client.update(one.type, one.state.id, one.state, inputs.properties)).rejects.toThrow(
      /expectedGeneration/,
    );
  } finally {
    fixture.world.takeRoll = take;
  }
  expect(rolls).toBe(3);
});
