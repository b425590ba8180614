/**
 * A blank machine in a rescue system becomes a host, by the real engine with the drop-in plugin. PALISADE_HOME and
 * PALISADE_STATE say where keys and image are.
 */
import { mkdtempSync, readFileSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { HostConnection, IntegrityFacts } from "../../../provider/backends/index.js";
import { HostAgentClient } from "../../../provider/local/agent-client/client.js";
import { defaultKeysDirectory, defaultStateDirectory } from "../../../shared/directories.js";
import { report } from "../../support/acceptance/report.js";
import { hostImage } from "./host-image.js";
import { Machine } from "./machine.js";
import { Project } from "./project.js";

const folder = mkdtempSync(path.join(tmpdir(), "palisade-metal-"));
const started = Date.now();
const seen: string[] = [];
let image = "";
let machine: Machine;
let project: Project;
let blank: Buffer;
let refusal = "";

beforeAll(async () => {
  image = await hostImage();
  machine = await Machine.make(path.join(folder, "machine"));
  blank = machine.beginning("target");
  machine.startRescue();
  project = new Project(path.join(folder, "project"), "host");
  expect((await project.run(["stack", "init", "test"])).output).toContain("Created stack");
  await project.configure({
    sshPort: String(machine.sshPort),
    agentPort: String(machine.agentPort),
    privateKey: machine.privateKey,
    hostKey: machine.hostKey,
    image,
    keys: defaultKeysDirectory(),
    serial: "other-disk",
  });
});

afterAll(async () => {
  await machine?.stop();
  if (process.env["PALISADE_KEEP"] === undefined) rmSync(folder, { recursive: true });
  else console.log(`kept: ${folder}`);
});

const up = (until?: RegExp, later = 0) =>
  project.run(["up", "--yes", "--skip-preview", "--stack", "test"], until, later);

/** The engine was killed: what it held is given up, as its operator does it. */
async function cancel(): Promise<void> {
  await project.run(["cancel", "--yes", "--stack", "test"]);
}

it("refuses a disk with somebody's data, and writes nothing", async () => {
  const other = machine.beginning("other");
  const refused = await up();
  expect(refused.exitCode).not.toBe(0);
  expect(refused.output).toContain('disk = {"serial":"other-disk"}: there is');
  expect(refused.output).toContain("/dev/vda serial=target-disk");
  refusal = /disk = .*/.exec(refused.output)![0];
  expect(machine.beginning("other").equals(other)).toBe(true);
  expect(machine.beginning("target").equals(blank)).toBe(true);
});

it("continues after the engine was killed at each of the steps", async () => {
  await project.configure({ serial: "target-disk" });
  for (const [step, said, later] of [
    ["copy of the image", /metal-image creating/, 4_000],
    ["verification", /reading it back/, 1_000],
    ["firmware's keys", /db is ours/, 0],
  ] as const) {
    const killed = await up(said, later);
    expect(killed.exitCode, killed.output).toBeNull();
    seen.push(`killed during ${step}`);
    await cancel();
  }
});

it("ends as a host whose agent answers over TLS with the identity that was enrolled", async () => {
  await project.configure({ serial: "target-disk" });
  const done = await up();
  expect(done.exitCode, `${done.output}\n${machine.consoleText().slice(-3000)}`).toBe(0);
  const shown = await project.run(["stack", "output", "--json", "--show-secrets", "--stack", "test"]);
  const outputs = JSON.parse(shown.output.slice(shown.output.indexOf("{"))) as {
    hostId: string;
    integrity: IntegrityFacts;
    device: string;
    connection: HostConnection;
  };
  expect(outputs.device).toBe("/dev/vda");
  const { rootHash } = JSON.parse(
    readFileSync(path.join(defaultStateDirectory(), "images", image.replace("sha256:", ""), "image.json"), "utf8"),
  ) as { rootHash: string };
  // What a NestedHost of the same image reports.
  const facts = {
    secureBoot: true,
    lockdown: "integrity",
    rootHash,
    rootHashSignatureVerified: true,
    verityMount: "/",
    ipePolicy: expect.stringContaining("palisade"),
    ipeEnforcing: true,
    mode: "enforce",
  };
  expect(outputs.integrity).toMatchObject(facts);
  const agent = new HostAgentClient(outputs.connection);
  const { hostId } = await agent.getHost();
  agent.close();
  expect(hostId).toBe(outputs.hostId);
  const evidence = JSON.stringify(outputs.integrity);
  report({
    table: "clouds",
    id: "M1",
    observed: `blank disk, rescue system, firmware in setup mode → host ${hostId} answers; ${seen.join(", ")}, repeated`,
    control: `the disk with data was refused and not written: ${refusal}`,
    // Run alone, without the interruptions, this proves a part only.
    pass: seen.length === 3,
    seconds: (Date.now() - started) / 1000,
    evidence,
    missing: "the rescue system of another distribution than Debian",
  });
});

it("changes nothing when run again, and keeps the key out of the state", async () => {
  const again = await up();
  expect(again.exitCode, again.output).toBe(0);
  expect(again.output).toMatch(/\d+ unchanged/);
  expect(again.output).not.toMatch(/created|updated|replaced/);
  const state = await project.run(["stack", "export", "--stack", "test"]);
  expect(state.output).not.toContain(machine.privateKey.split("\n")[1]);
});
