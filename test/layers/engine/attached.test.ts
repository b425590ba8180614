/**
 * The provider attached in-process: several runs of the engine talk to one that lives on, and each gets its progress.
 */
import { afterAll, beforeAll, expect, it } from "vitest";
import { resources } from "../../../provider/resources/index.js";
import { schemaText } from "../../../provider/schema/schema.js";
import { serve, type RunningProvider } from "../../../provider/protocol/index.js";
import { createFakeBackends } from "../../support/fakes/backends.js";
import { EngineProject } from "./project.js";

const project = new EngineProject("stack");
let provider: RunningProvider;
const attached = () => ({ PULUMI_DEBUG_PROVIDERS: `palisade:${provider.port}` });

beforeAll(async () => {
  const backends = createFakeBackends(project.world);
  provider = await serve({ backends: () => backends, resources, schema: schemaText });
  await project.init();
});
afterAll(async () => {
  await provider.close();
  project.remove();
});

it("serves one run after the other, though the engine cancels at the end of each", async () => {
  const first = await project.run(["up", "--yes", "--skip-preview", "--stack", project.stack], attached());
  expect(first.exitCode, first.output).toBe(0);
  // Progress came through the engine that attached itself.
  expect(first.output).toMatch(/registry creating.*registry-started/);
  const second = await project.run(["up", "--yes", "--skip-preview", "--stack", project.stack], attached());
  expect(second.exitCode, second.output).toBe(0);
  expect(second.output).toMatch(/7 unchanged/);
  const destroyed = await project.run(["destroy", "--yes", "--skip-preview", "--stack", project.stack], attached());
  expect(destroyed.exitCode, destroyed.output).toBe(0);
  expect(project.world.list("virtual-machines")).toEqual([]);
  expect(provider.idle).toBe(true);
});
