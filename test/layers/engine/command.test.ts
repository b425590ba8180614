/** The npm package @pulumi/command on the real engine, with the drop-in plugin and OpenSSH's server. */
import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { SshServer } from "../../../command-plugin/testing/ssh-server.js";
import { Project } from "../metal/project.js";

const folder = mkdtempSync(path.join(tmpdir(), "palisade-command-"));
let server: SshServer;
let project: Project;

beforeAll(async () => {
  server = await SshServer.start();
  project = new Project(folder, "commands");
  await project.run(["stack", "init", "test"]);
  await project.configure({
    sshPort: String(server.port),
    privateKey: server.privateKey,
    hostKey: server.hostKey,
    folder,
    trigger: "one",
  });
});

afterAll(async () => {
  await server.stop();
  rmSync(folder, { recursive: true });
});

const up = () => project.run(["up", "--yes", "--stack", "test"]);

it("runs local and remote commands, and functions", async () => {
  const done = await up();
  expect(done.exitCode, done.output).toBe(0);
  expect(done.output).toMatch(/there\s*: "made"/);
  expect(done.output).toMatch(/now\s*: "now"/);
  expect((await up()).output).toMatch(/4 unchanged/);
});

it("has no credential in clear in its state", async () => {
  const { output } = await project.run(["stack", "export", "--stack", "test"]);
  expect(output).toContain("command:remote:Command");
  expect(output).not.toContain(server.privateKey.split("\n")[1]);
});

it("is replaced by a trigger, and deletes what it made", async () => {
  await project.configure({ trigger: "two" });
  const done = await up();
  expect(done.exitCode, done.output).toBe(0);
  expect(done.output).toMatch(/3 replaced/);
  const destroyed = await project.run(["destroy", "--yes", "--stack", "test"]);
  expect(destroyed.exitCode, destroyed.output).toBe(0);
});
