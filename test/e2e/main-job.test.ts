/** `make up` as a user runs it: one real host, shared by all tests of this file, in the order in which they are written. */
import { readdirSync, readFileSync } from "node:fs";
import { connect } from "node:net";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { createLocalBackends } from "../../components/provider/backends-local.js";
import type { AgentClient, HostConnection } from "../../components/provider/backends.js";
import { ContainerPhase } from "../../hosts/api/gen/palisade/agent/v1/agent_pb.js";
import { report, type Observation } from "../acceptance/report.js";
import { Environment, eventually, isAlive } from "./environment.js";

const environment = new Environment();
let url = "";

async function answers(): Promise<string> {
  const response = await fetch(url, { signal: AbortSignal.timeout(10_000) });
  if (!response.ok) throw new Error(`HTTP ${response.status}`);
  return response.text();
}

async function agent<T>(use: (client: AgentClient) => Promise<T>): Promise<T> {
  const machine = [...(await environment.resources()).values()].find((one) => one.type.endsWith(":VirtualMachine"));
  const { agents } = createLocalBackends({ stateDirectory: environment.state, cacheDirectory: environment.root });
  const client = agents.connect(machine!.outputs["connection"] as HostConnection);
  try {
    return await use(client);
  } finally {
    client.close();
  }
}

const containerId = (): Promise<string> =>
  agent(async (client) => (await client.getGroup("web"))!.status!.containers[0]!.containerId);

/** Writes the row down, whether it holds or not, and then fails the test if it does not. */
function prove(row: Omit<Observation, "table" | "pass" | "seconds">, started: number, pass: boolean): void {
  report({ table: "attack", ...row, pass, seconds: (Date.now() - started) / 1000 });
  expect(pass, `${row.id}: ${row.observed}`).toBe(true);
}

beforeAll(async () => {
  const up = await environment.make("up");
  expect(up.exitCode, up.stderr).toBe(0);
  url = String((await environment.outputs())["url"]);
  expect(up.stdout).toContain(url);
});

afterAll(async () => {
  await environment.make("down");
  environment.remove();
});

describe("the host that make up made", () => {
  it("serves the page of the program's image", async () => {
    expect(await answers()).toMatch(/Palisade/i);
  });

  it("B6: Secure Boot is on, the firmware not in setup mode", async () => {
    const started = Date.now();
    const facts = await agent((client) => client.getIntegrity());
    const observed = `SecureBoot ${Number(facts.secureBoot)}, SetupMode ${Number(facts.setupMode)}`;
    prove({ id: "B6", observed, evidence: observed }, started, facts.secureBoot && !facts.setupMode);
  });

  it("V8: the root's verity table carries the description of a signature", async () => {
    const started = Date.now();
    const { root } = await agent((client) => client.getIntegrity());
    prove(
      { id: "V8", observed: root!.table, evidence: root!.table },
      started,
      root!.signatureVerified && root!.signaturesRequired && /root_hash_sig_key_desc/.test(root!.table),
    );
    expect(root!.mountPoint).toBe("/");
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
    const group = await agent((client) => client.getGroup("web"));
    const wanted = group!.spec!.containers[0]!.resources!;
    const status = group!.status!.containers[0]!;
    const [quota, period] = status.cgroupCpuMax.split(" ").map(Number);
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

  it("serves again after a reboot, with Pulumi absent", async () => {
    const bootOf = (): Promise<string> => agent(async (client) => (await client.getHost()).bootId);
    const before = await bootOf();
    await reboot();
    await eventually("another boot", 400, async () => ((await bootOf()) === before ? undefined : true));
    await eventually("the group serves", 120, answers);
  });

  it("shows a killed QEMU as stopped, and up repairs it", async () => {
    const pid = environment.processId("virtual-machines", "qemu");
    process.kill(pid, "SIGKILL");
    await eventually("QEMU is gone", 10, async () => (isAlive(pid) ? undefined : true));
    const preview = await environment.pulumi("preview", "--diff");
    expect(preview.exitCode, preview.stderr).toBe(0);
    expect(preview.stdout).toMatch(/powerState.*stopped.*running/);
    const up = await environment.make("up");
    expect(up.exitCode, up.stderr).toBe(0);
    expect(await answers()).toMatch(/Palisade/i);
    expect(environment.things("virtual-machines").size).toBe(1);
    expect(environment.things("state-disks").size).toBe(1);
  });

  it("has all containers of the group running after that", async () => {
    const group = await agent((client) => client.getGroup("web"));
    expect(group!.status!.containers.map((container) => container.phase)).toEqual([ContainerPhase.RUNNING]);
  });

  it("P3: keeps the registry's password and the passphrase out of state, console, argv and environ", async () => {
    const started = Date.now();
    const [registry] = [...environment.things("registries").keys()];
    const passphrase = readFileSync(path.join(environment.home, "passphrase"), "utf8").trim();
    const secrets = [passphrase, registryPassword(registry!)];
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
    const found = [...places].filter(([, content]) => secrets.some((secret) => content.includes(secret)));
    prove(
      {
        id: "P3",
        observed:
          found.length === 0 ? `${places.size} places searched, none found` : found.map(([at]) => at).join(", "),
        evidence: `${secrets.length} secrets searched for in state, history, console logs, argv and environ`,
      },
      started,
      secrets.every((secret) => secret.length >= 16) && found.length === 0,
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

async function reboot(): Promise<void> {
  const [id] = [...environment.things("virtual-machines").keys()];
  const socket = connect(path.join(environment.state, "virtual-machines", id!, "qmp.sock"));
  // A hard reset, as by the button: nothing in the guest is asked.
  socket.write('{"execute":"qmp_capabilities"}\n{"execute":"system_reset"}\n');
  await new Promise((resolve) => setTimeout(resolve, 1000));
  socket.destroy();
}

function registryPassword(id: string): string {
  const file = path.join(environment.state, "registries", id, "credentials.json");
  return (JSON.parse(readFileSync(file, "utf8")) as { password: string }).password;
}

function collect(folder: string, into: Map<string, string>): void {
  for (const entry of readdirSync(folder, { withFileTypes: true })) {
    const file = path.join(folder, entry.name);
    if (entry.isDirectory()) collect(file, into);
    else if (entry.isFile()) into.set(file, readFileSync(file, "latin1"));
  }
}
