/** What the real engine makes of a group on Azure: replacements, late refusals, secrets in the state. Row A3. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { report } from "../../support/acceptance/report.js";
import { EngineProject } from "./project.js";
import { azure } from "./stand-ins.js";

describe("a group on Azure", () => {
  const started = Date.now();
  const project = new EngineProject("azure-group", "test", { standIns: [azure] });
  const observed: string[] = [];
  const changes: [string, string, string][] = [
    ["osType", "Windows", "osType"],
    ["cpu", "2", "containers[0].resources.requests.cpu"],
    ["restartPolicy", "Never", "restartPolicy"],
    ["subnet", "/subscriptions/0/subnets/a", "subnetIds"],
  ];
  let control = "";
  beforeAll(async () => {
    await project.init();
    const up = await project.up();
    expect(up.exitCode, up.output).toBe(0);
  });
  afterAll(() => {
    project.remove();
    report({
      table: "clouds",
      id: "A3",
      observed: `shown as replace by the engine: ${observed.join(", ")}`,
      control,
      pass: observed.length === changes.length && control !== "",
      seconds: (Date.now() - started) / 1000,
      evidence: "detailedDiff of pulumi preview --json with a provider that itself demands no replacement",
    });
  });

  /** What a preview shows of the group with one setting changed. */
  async function previewed(name: string, value: string) {
    await project.configure({ [name]: value });
    const steps = (await project.changes()).filter(({ urn }) => urn.endsWith("::shop-group"));
    await project.expectSuccess(["config", "rm", name, "--stack", project.stack]);
    return steps;
  }

  it.each(changes)("is replaced when %s becomes %s", async (name, value, path) => {
    const steps = await previewed(name, value);
    expect(steps.map(({ op }) => op)).toEqual(["replace"]);
    expect(Object.entries(steps[0]!.detailedDiff!)).toEqual([
      [path, expect.objectContaining({ kind: expect.any(String) })],
    ]);
    observed.push(path);
  });

  it("control: another environment is an update", async () => {
    const steps = await previewed("value", "2");
    expect(steps.map(({ op }) => op)).toEqual(["update"]);
    control = "a changed environment variable is shown as update";
  });

  it("is refused in preview when an argument that becomes known late is wrong", async () => {
    await project.configure({ latePort: "22" });
    const preview = await project.run(["preview", "--stack", project.stack]);
    expect(preview.exitCode).not.toBe(0);
    expect(preview.output).toContain("containers[0].ports[0].port = 22: ACI keeps port 22 for itself");
    await project.configure({ latePort: "80" });
    expect((await project.changes()).map(({ op }) => op)).toEqual(["update"]);
    await project.expectSuccess(["config", "rm", "latePort", "--stack", project.stack]);
  });

  it("leaves no secret in clear in the state", () => {
    const clear = [...project.files()].filter(([, text]) => text.includes("canary-token")).map(([file]) => file);
    expect(clear).toEqual([]);
  });
});
