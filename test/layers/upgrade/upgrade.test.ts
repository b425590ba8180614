/**
 * Users upgrade: the state that each released version left is previewed by the current code, and nothing changes. A
 * change here that cannot be avoided needs a migration page in docs/. `PALISADE_WRITE_STATE=1` writes the state of this
 * version.
 */
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { afterEach, describe, expect, it } from "vitest";
import { EngineProject } from "../engine/project.js";
import { azure, kubernetes } from "../engine/stand-ins.js";
import { packageRoot } from "../../../shared/directories.js";

const repository = packageRoot();
const states = path.join(__dirname, "testdata");
const { version } = JSON.parse(readFileSync(path.join(repository, "package.json"), "utf8")) as { version: string };
/** Stands for the project's folder, which is another one in each run. */
const placeholder = "@project@";

function textFiles(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => path.join(entry.parentPath, entry.name));
}

function replaceIn(folder: string, from: string, to: string): void {
  for (const file of textFiles(folder)) writeFileSync(file, readFileSync(file, "utf8").replaceAll(from, to));
}

describe("upgrade", () => {
  let project: EngineProject;
  const newProject = () =>
    (project = new EngineProject("every-component", "upgrade", { standIns: [azure, kubernetes] }));
  afterEach(() => project.remove());

  it.runIf(process.env["PALISADE_WRITE_STATE"])("writes the state of this version", async () => {
    newProject();
    await project.init();
    const up = await project.up();
    expect(up.exitCode, up.output).toBe(0);
    const folder = path.join(states, version);
    rmSync(folder, { recursive: true, force: true });
    mkdirSync(folder, { recursive: true });
    const { stdout } = await project.expectSuccess(["stack", "export", "--stack", project.stack]);
    writeFileSync(path.join(folder, "state.json"), stdout);
    cpSync(project.world.directory, path.join(folder, "world"), { recursive: true });
    replaceIn(folder, project.root, placeholder);
  });

  it("has the state of this version", () => {
    newProject();
    expect(existsSync(path.join(states, version, "state.json"))).toBe(true);
  });

  it.each(readdirSync(states))("from %s changes nothing", async (from) => {
    newProject();
    await project.init();
    const folder = path.join(project.root, "from");
    cpSync(path.join(states, from), folder, { recursive: true });
    replaceIn(folder, placeholder, project.root);
    cpSync(path.join(folder, "world"), project.world.directory, { recursive: true });
    const file = path.join(folder, "state.json");
    // Control: the same program on an empty state makes everything.
    expect((await project.changes()).length).toBeGreaterThan(15);
    await project.expectSuccess(["stack", "import", "--stack", project.stack, "--file", file]);
    expect((await project.changes()).map(({ op, urn, detailedDiff }) => ({ op, urn, detailedDiff }))).toEqual([]);
    const text = readFileSync(file, "utf8");
    for (const secret of ["canary-token", "canary-password", "Y2FuYXJ5LWxldHRlcg=="])
      expect(text).not.toContain(secret);
  });
});
