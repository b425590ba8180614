/**
 * The whole graph of the environment `local`, compared with a committed one: a changed URN or input is seen in review.
 */
import { readFileSync } from "node:fs";
import path from "node:path";
import { afterEach, beforeEach, expect, it, vi } from "vitest";
import { answer } from "../components/internal/testing/answers.js";
import { record, settled, valueOf } from "../components/internal/testing/recorder.js";

beforeEach(() => {
  vi.resetModules();
  vi.stubEnv("PALISADE_HOME", "/operator");
});
afterEach(() => vi.unstubAllEnvs());

async function program(preview: boolean) {
  const registrations = await record({ answer, preview, stack: "local" });
  const { local } = await import("./local.js");
  const { readConfiguration } = await import("./configuration.js");
  const outputs = local(readConfiguration());
  await settled();
  return { registrations, outputs };
}

it.each([
  ["update", false],
  ["preview", true],
] as const)("registers the committed graph (%s)", async (name, preview) => {
  const { registrations } = await program(preview);
  // The files of the image have a test of their own.
  for (const { inputs } of registrations) {
    if (inputs["files"]) inputs["files"] = Object.keys(inputs["files"]);
  }
  const graph = registrations.sort((a, b) => (a.urn < b.urn ? -1 : 1));
  await expect(`${JSON.stringify(graph, undefined, 2)}\n`).toMatchFileSnapshot(`testdata/local-${name}.json`);
});

it("keeps the registry's password secret wherever it goes", async () => {
  const { registrations } = await program(false);
  const text = JSON.stringify(registrations);
  const marked = text.split('{"[secret]":"registry-password"}').length - 1;
  expect(text.split("registry-password").length - 1).toBe(marked);
  // The image, its patch, its seal, the group.
  expect(marked).toBe(4);
});

it("reports where the group answers", async () => {
  const { outputs } = await program(false);
  expect(await valueOf(outputs.url)).toBe("http://127.0.0.1:40080/");
  expect(await valueOf(outputs.registry)).toBe("127.0.0.1:5000");
});

it("has one set of defaults in Pulumi.yaml and in the program", async () => {
  const { defaults } = await import("./configuration.js");
  const yaml = readFileSync(path.join(__dirname, "../Pulumi.yaml"), "utf8");
  const section = yaml.slice(yaml.indexOf("\nconfig:\n"));
  const found = [...section.matchAll(/^ {2}(\w+):\n(?: {4}.*\n)*? {4}default: (.*)$/gm)].map(([, key, value]) => [
    key,
    value,
  ]);
  expect(Object.fromEntries(found)).toEqual(
    Object.fromEntries(Object.entries(defaults).map(([key, value]) => [key, String(value)])),
  );
});
