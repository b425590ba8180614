/**
 * `make up` as a user runs it: one real host, shared by all tests of this file, in the order in which they are written.
 */
import { spawnSync } from "node:child_process";
import { readdirSync, readFileSync, writeFileSync } from "node:fs";
import { connect } from "node:net";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { AgentClient } from "../../../provider/backends/index.js";
import { ContainerPhase } from "../../../hosts/api/gen/palisade/agent/v1/agent_pb.js";
import { report } from "../../support/acceptance/report.js";
import { prove } from "../../support/acceptance/prove.js";
import { groupContract } from "../contract/groups/contract.js";
import { HostBackend } from "../contract/groups/host.js";
import {
  cacheDirectory,
  type CommandResult,
  Environment,
  eventually,
  isAlive,
  type StateResource,
} from "../../support/hosts/environment.js";

const environment = new Environment();
/** Made before anything else of this run. */
const start = path.join(environment.root, "start");
let url = "";
/** The preview of a stack in which nothing was changed by hand. */
let undisturbed: CommandResult | undefined;

async function answers(): Promise<string> {
  const response = await fetch(url, { signal: AbortSignal.timeout(10_000) });
  if (!response.ok) throw new Error(`HTTP ${response.status}`);
  return response.text();
}

const agent = <T>(use: (client: AgentClient) => Promise<T>): Promise<T> => environment.agent(use);

const containerId = (): Promise<string> =>
  agent(async (client) => (await client.getGroup("web"))!.status!.containers[0]!.containerId);

beforeAll(async () => {
  writeFileSync(start, "");
  await environment.useTestKeys();
  const up = await environment.make("up");
  expect(up.exitCode, up.stderr).toBe(0);
  url = String((await environment.outputs())["url"]);
  expect(up.stdout).toContain(url);
});

afterAll(async () => {
  await environment.make("down");
  environment.remove();
});

groupContract(new HostBackend(agent));

describe("the host that make up made", () => {
  it("serves the page of the program's image", async () => {
    expect(await answers()).toMatch(/Palisade/i);
  });

  it("PT1: runs the digest of the patched image, in which nothing is fixable any more", async () => {
    const started = Date.now();
    const { vulnerabilities, image, vex } = await environment.outputs();
    const { fixableBefore, fixableAfter } = vulnerabilities as Record<string, number>;
    const running = (await agent((client) => client.getGroup("web")))!.status!.containers[0]!.imageDigest;
    const pass = fixableBefore! > 0 && fixableAfter === 0 && String(image).endsWith(`@${running.split("@").at(-1)}`);
    report({
      ...{ table: "patch", id: "PT1", part: "roll" },
      observed: `the group runs ${running}, patched from ${fixableBefore} fixable to ${fixableAfter}`,
      evidence: `${String(image)}, attested by ${String(vex)}`,
      ...{ pass, seconds: (Date.now() - started) / 1000 },
    });
    expect(pass, `${running}, ${JSON.stringify({ vulnerabilities, image })}`).toBe(true);
  });

  it("runs under lockdown, with an active IPE policy and a loaded SELinux policy", async () => {
    const facts = await agent((client) => client.getIntegrity());
    expect(facts.lockdown).toBe("integrity");
    expect(facts.ipe!.activePolicy).not.toBe("");
    expect(facts.selinux!.enabled).toBe(true);
    // The kernel trusts the operator's certificates and no vendor's.
    expect(facts.keyringCertificates.join("\n")).not.toMatch(/Microsoft|Debian Secure Boot/);
  });

  it("gives the container the CPU and memory that the program asks for, as its cgroup shows", async () => {
    // The agent looks at a container's cgroup some seconds after its start.
    const group = await eventually("the limits are read", 60, async () => {
      const found = await agent((client) => client.getGroup("web"));
      return found?.status?.containers[0]?.cgroupCpuMax ? found : undefined;
    });
    const wanted = group.spec!.containers[0]!.resources!;
    const status = group.status!.containers[0]!;
    const [quota, period] = status.cgroupCpuMax.split(" ").map(Number);
    report({
      ...{ table: "groups", id: "G4", part: "cgroup", pass: true, seconds: 0 },
      observed: `asked for: ${wanted.cpuLimit} CPUs, ${wanted.memoryLimitBytes} bytes`,
      evidence: `cpu.max ${status.cgroupCpuMax}, memory.max ${status.cgroupMemoryMax}`,
      missing: "a limit above the sum of the group, refused before anything changes on a real host",
    });
    expect(quota! / period!).toBeCloseTo(wanted.cpuLimit, 3);
    expect(BigInt(status.cgroupMemoryMax)).toBe(wanted.memoryLimitBytes);
  });

  it("changes nothing when it is run again: same QEMU, same container", async () => {
    const before = [environment.processId("virtual-machines", "qemu"), await containerId()];
    const again = await environment.make("up");
    expect(again.exitCode, again.stderr).toBe(0);
    expect(again.stdout).toMatch(/\d+ unchanged/);
    expect(again.stdout).not.toMatch(/[+~-]\d* ?\d+ (created|updated|deleted|replaced)/);
    expect([environment.processId("virtual-machines", "qemu"), await containerId()]).toEqual(before);
  });

  it("G14: takes every resource into a stack that lost them by import, and the next preview shows no change", async () => {
    const started = Date.now();
    const container = await containerId();
    await loseResources();
    const imported = await environment.pulumi(
      ...["import", "--file", path.join(environment.root, "import.json"), "--yes", "--skip-preview"],
      ...["--generate-code=false", "--protect=false"],
    );
    expect(imported.exitCode, imported.stderr).toBe(0);
    expect(imported.stdout + imported.stderr).not.toMatch(/failed to validate/);
    const preview = await environment.pulumi("preview", "--diff", "--expect-no-changes");
    // What an import cannot know, the values of secrets, comes from the program.
    const up = await environment.up();
    report({
      ...{ table: "groups", id: "G14" },
      observed: `preview --expect-no-changes ends with ${preview.exitCode}, up with ${up.exitCode}; the same container runs: ${container === (await containerId())}`,
      evidence: preview.stdout.trim().split("\n").at(-1)!,
      pass: preview.exitCode === 0 && up.exitCode === 0,
      seconds: (Date.now() - started) / 1000,
    });
    expect(preview.exitCode, preview.stdout).toBe(0);
    expect(up.exitCode, up.stderr).toBe(0);
    undisturbed = preview;
  });

  it("G11: serves again after a reboot, with Pulumi absent", async () => {
    const started = Date.now();
    const bootOf = (): Promise<string> => agent(async (client) => (await client.getHost()).bootId);
    const before = await bootOf();
    await reboot();
    await eventually("the machine has booted again", 400, async () => ((await bootOf()) === before ? undefined : true));
    await eventually("the group serves", 120, answers);
    report({
      ...{ table: "groups", id: "G11", part: "reboot", pass: true, seconds: (Date.now() - started) / 1000 },
      observed: "after a hard reset of the machine the group serves again, without Pulumi",
      evidence: `boot id ${before} before, ${await bootOf()} after`,
      missing: "the agent or containerd killed with SIGKILL on a host",
    });
  });

  it("P1: shows a killed QEMU and registry, as after a restart of this machine, as stopped, and up repairs them", async () => {
    const started = Date.now();
    const pids = [
      environment.processId("virtual-machines", "qemu"),
      environment.processId("registries", "docker-registry"),
    ];
    for (const pid of pids) process.kill(pid, "SIGKILL");
    await eventually("QEMU and the registry have ended", 10, async () => (pids.some(isAlive) ? undefined : true));
    const preview = await environment.pulumi("preview", "--diff");
    expect(preview.exitCode, preview.stderr).toBe(0);
    const drift = /powerState.*stopped.*running/;
    const up = await environment.up();
    expect(up.exitCode, up.stderr).toBe(0);
    const page = await answers();
    prove(
      {
        id: "P1",
        part: "machine",
        observed: `QEMU and registry killed: preview shows ${drift.exec(preview.stdout)?.[0]}; after up the group serves: ${/Palisade/i.test(page)}`,
        control: `nothing killed: preview --expect-no-changes ends with ${undisturbed?.exitCode}`,
        evidence: preview.stdout.split("\n").find((line) => drift.test(line)) ?? "no drift in the preview",
      },
      started,
      drift.test(preview.stdout) && /Palisade/i.test(page) && undisturbed?.exitCode === 0,
    );
    expect(environment.things("virtual-machines").size).toBe(1);
    expect(environment.things("state-disks").size).toBe(1);
  });

  it("has all containers of the group running after that", async () => {
    const group = await agent((client) => client.getGroup("web"));
    expect(group!.status!.containers.map((container) => container.phase)).toEqual([ContainerPhase.RUNNING]);
  });

  it("P3: keeps the registry's password and the passphrase out of state, console, argv and environ", async () => {
    const started = Date.now();
    const passphrase = readFileSync(path.join(environment.home, "passphrase"), "utf8").trim();
    const secrets = [passphrase, registryPassword()];
    const places = new Map<string, string>();
    for (const folder of [path.join(environment.home, "backend"), path.join(environment.state, "virtual-machines")]) {
      collect(folder, places);
    }
    for (const pid of readdirSync("/proc").filter((name) => /^\d+$/.test(name))) {
      for (const file of ["cmdline", "environ"]) {
        try {
          places.set(`/proc/${pid}/${file}`, readFileSync(`/proc/${pid}/${file}`, "latin1"));
        } catch {
          // The process is gone, or a kernel thread.
        }
      }
    }
    const preview = await environment.pulumi("preview", "--diff");
    places.set("preview --diff", preview.stdout + preview.stderr);
    const holding = (texts: string[]) =>
      [...places].filter(([, content]) => texts.some((text) => content.includes(text))).map(([place]) => place);
    const found = holding(secrets);
    // Control: the same search finds a text that is not secret in each kind of place.
    const stateFile = path.join(environment.home, "backend");
    const [machine] = environment.things("virtual-machines").keys();
    const known = holding([machine!]);
    const seen = {
      state: known.some((place) => place.startsWith(stateFile)),
      machine: known.some((place) => place.startsWith(environment.state)),
      arguments: known.some((place) => place.endsWith("/cmdline")),
      environment: holding(["PATH="]).some((place) => place.endsWith("/environ")),
      preview: holding(["palisade"]).includes("preview --diff"),
    };
    // Not older than the first secret.
    const inCache = filesWith(secrets, cacheDirectory(), start);
    prove(
      {
        id: "P3",
        observed:
          found.length + inCache.length === 0
            ? `${places.size} places and the build cache searched, none found`
            : [...found, ...inCache].join(", "),
        control: `the machine's id and other names, searched for in the same way: ${JSON.stringify(seen)}`,
        evidence: `${secrets.length} secrets searched for in state, history, previews, console logs, argv, environ, build cache`,
      },
      started,
      secrets.every((secret) => secret.length >= 16) &&
        found.length + inCache.length === 0 &&
        Object.values(seen).every(Boolean),
    );
  });

  it("leaves nothing behind after make down but keys and passphrase", async () => {
    const pids = [
      environment.processId("virtual-machines", "qemu"),
      environment.processId("virtual-machines", "swtpm"),
      environment.processId("registries", "docker-registry"),
    ];
    const down = await environment.make("down");
    expect(down.exitCode, down.stderr).toBe(0);
    expect(pids.filter(isAlive)).toEqual([]);
    for (const kind of ["virtual-machines", "state-disks", "registries"] as const) {
      expect([...environment.things(kind).keys()], kind).toEqual([]);
    }
    expect(readFileSync(path.join(environment.home, "passphrase"), "utf8")).not.toBe("");
    expect(readdirSync(path.join(environment.home, "keys"))).toContain("secure-boot");
    const again = await environment.make("down");
    expect(again.exitCode, again.stderr).toBe(0);
  });
});

interface Exported {
  deployment: { resources: (StateResource & { parent?: string; provider?: string; dependencies?: string[] })[] };
}

/** Takes our resources out of the state and writes down, as `pulumi import` wants it, what they were. */
async function loseResources(): Promise<void> {
  const state = JSON.parse((await environment.pulumi("stack", "export")).stdout) as Exported;
  const isOurs = ({ type, custom }: StateResource) => custom && type.startsWith("palisade:");
  const lost = state.deployment.resources.filter(isOurs);
  expect(new Set(lost.map(({ type }) => type)).size).toBe(9);
  const nameTable: Record<string, string> = {};
  // Not all names differ from each other; URNs do.
  const named = (urn: string): string => {
    nameTable[urn] = urn;
    return urn;
  };
  const resources = lost.map(({ type, urn, id, parent, provider }) => ({
    ...{ type, id, name: urn.slice(urn.lastIndexOf("::") + 2) },
    provider: named(provider!.slice(0, provider!.lastIndexOf("::"))),
    ...(parent!.includes("pulumi:pulumi:Stack") ? {} : { parent: named(parent!) }),
  }));
  writeFileSync(path.join(environment.root, "import.json"), JSON.stringify({ nameTable, resources }));
  const gone = new Set(lost.map(({ urn }) => urn));
  state.deployment.resources = state.deployment.resources
    .filter((one) => !isOurs(one))
    .map((one) => ({ ...one, dependencies: one.dependencies?.filter((urn) => !gone.has(urn)) }));
  const file = path.join(environment.root, "state.json");
  writeFileSync(file, JSON.stringify(state), { mode: 0o600 });
  expect((await environment.pulumi("stack", "import", "--file", file)).exitCode).toBe(0);
}

async function reboot(): Promise<void> {
  const socket = connect(path.join(environment.folder("virtual-machines"), "qmp.sock"));
  // A hard reset, as by the button: the guest takes no part in it.
  socket.write('{"execute":"qmp_capabilities"}\n{"execute":"system_reset"}\n');
  await new Promise((resolve) => setTimeout(resolve, 1000));
  socket.destroy();
}

function registryPassword(): string {
  const file = path.join(environment.folder("registries"), "credentials.json");
  return (JSON.parse(readFileSync(file, "utf8")) as { password: string }).password;
}

/** Files below a folder, of any size, written or moved since a file was made, in which one of the texts occurs. */
function filesWith(texts: string[], folder: string, since: string): string[] {
  const patterns = path.join(environment.root, "patterns");
  writeFileSync(patterns, texts.join("\n"), { mode: 0o600 });
  // The time of the inode's last change, which no program can set back.
  const find = [folder, "-type", "f", "-cnewer", since];
  const grep = ["grep", "--files-with-matches", "--text", "--fixed-strings", `--file=${patterns}`];
  const { status, stdout, stderr } = spawnSync("find", [...find, "-exec", ...grep, "{}", "+"], { encoding: "utf8" });
  // find exits with 1 when grep found nothing, or when a file was removed meanwhile.
  if (status === null || status > 1) throw new Error(`find: ${stderr}`);
  return stdout.split("\n").filter(Boolean);
}

function collect(folder: string, into: Map<string, string>): void {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const file = path.join(folder, entry.name);
    if (entry.isDirectory()) collect(file, into);
    else if (entry.isFile()) into.set(file, readFileSync(file, "latin1"));
  }
}
