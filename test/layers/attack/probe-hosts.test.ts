/**
 * Two stacks of one operator on one machine, started at the same time; the `up` of one of them is killed. Their hosts'
 * image has the tests' probe in it, so that things can be done behind the agent's back: the attacks of
 * test/layers/attack run here. The first host enforces as the product does; the second, mode debug, has given up
 * nothing, and is later another mode.
 */
import { readdirSync, readFileSync } from "node:fs";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { ContainerPhase } from "../../../hosts/api/gen/palisade/agent/v1/agent_pb.js";
import { Environment, eventually, isAlive, type CommandResult } from "../../support/hosts/environment.js";
import { storeProbeImage } from "../../support/hosts/probe-image.js";
import { prove } from "../../support/acceptance/prove.js";
import { report } from "../../support/acceptance/report.js";
import { Probe } from "../../support/hosts/probe.js";
import { bootFacts, initrdAttacks } from "./boot.js";
import { containerAttacks } from "./containers.js";
import { datapathAttacks } from "./datapath.js";
import { executionAttacks } from "./execution.js";
import type { AttackedHost } from "./hosts.js";
import { kernelAttacks } from "./kernel.js";
import { otherModes } from "./modes.js";
import { roleAttacks } from "./roles.js";

const first = new Environment("e2e-first");
const second = new Environment("e2e-second", first.root);
const both = [first, second];
const kinds = ["virtual-machines", "state-disks", "registries"] as const;
let results: CommandResult[] = [];
let killed: CommandResult;
let qemuAtDeath = 0;

const probes = new Map<Environment, Probe>();
const attacked = (environment: Environment): AttackedHost => ({
  environment,
  probe: () => {
    const probe = probes.get(environment);
    if (!probe) throw new Error(`${environment.stack} has no probe`);
    return probe;
  },
});
/** Connects to the probe of the machine that runs now. */
async function attach(environment: Environment): Promise<Probe> {
  probes.get(environment)?.close();
  const probe = await Probe.attach(environment);
  probes.set(environment, probe);
  return probe;
}

const get = async (environment: Environment): Promise<string> => {
  const response = await fetch(String((await environment.outputs())["url"]), { signal: AbortSignal.timeout(10_000) });
  if (!response.ok) throw new Error(`HTTP ${response.status}`);
  return response.text();
};

/** An `up` that is killed, with Pulumi, its language host and the plugin, while the machine boots. */
async function killedUp(environment: Environment): Promise<CommandResult> {
  let pid = 0;
  const up = environment.up((started) => (pid = started));
  await eventually("the machine boots", 600, async () => {
    const [machine] = environment.things("virtual-machines").values();
    qemuAtDeath = machine?.processes.find(({ name }) => name === "qemu")?.pid ?? 0;
    return qemuAtDeath > 0 ? true : undefined;
  });
  await new Promise((resolve) => setTimeout(resolve, 3000));
  for (const victim of descendants(pid)) process.kill(victim, "SIGKILL");
  return up;
}

/** A process and everything that it started, parents first, but not what lives in a session of its own. */
function descendants(root: number): number[] {
  const children = new Map<number, number[]>();
  const statusOf = (pid: number | string) => {
    // "pid (name) state ppid pgrp session ...": the name may hold spaces and brackets.
    const fields = readFileSync(`/proc/${pid}/stat`, "utf8")
      .replace(/^.*\) /s, "")
      .split(" ");
    return { parent: Number(fields[1]), session: fields[3] };
  };
  const { session } = statusOf(root);
  for (const name of readdirSync("/proc").filter((entry) => /^\d+$/.test(entry))) {
    try {
      const status = statusOf(name);
      if (status.session !== session) continue;
      children.set(status.parent, [...(children.get(status.parent) ?? []), Number(name)]);
    } catch {
      // It has ended meanwhile.
    }
  }
  const found = [root];
  for (const pid of found) found.push(...(children.get(pid) ?? []));
  return found;
}

beforeAll(async () => {
  await first.useTestKeys();
  const modes = [await storeProbeImage(first, "enforce"), await storeProbeImage(first, "debug")];
  expect(modes[1]!.rootHash, "another mode is another kernel image for the same root").toBe(modes[0]!.rootHash);
  for (const [index, environment] of both.entries()) {
    environment.configure({ environment: "local", imageDigest: modes[index]!.digest });
  }
  const [whole, broken] = await Promise.all([first.up(), killedUp(second)]);
  killed = broken;
  results = [whole, await second.up()];
});

afterAll(async () => {
  for (const probe of probes.values()) probe.close();
  for (const environment of both) {
    const down = await environment.down();
    expect(down.exitCode, down.stderr).toBe(0);
  }
  for (const environment of both) environment.remove();
});

describe("two stacks that came up at the same time", () => {
  it("both serve; the one whose `up` was killed does so after the next `up`", async () => {
    expect(killed.exitCode).not.toBe(0);
    for (const result of results) expect(result.exitCode, result.stderr).toBe(0);
    for (const environment of both) expect(await get(environment)).toMatch(/Palisade/);
  });

  it("have exactly one machine, disk and registry each, and the killed up's machine lives on", () => {
    for (const environment of both) {
      for (const kind of kinds) expect(environment.things(kind).size, `${environment.stack}: ${kind}`).toBe(1);
    }
    expect(second.processId("virtual-machines", "qemu")).toBe(qemuAtDeath);
    expect(isAlive(qemuAtDeath)).toBe(true);
  });

  it("share no port, MAC address, host or disk", async () => {
    const facts = await Promise.all(
      both.map(async (environment) => {
        const pid = environment.processId("virtual-machines", "qemu");
        const commandLine = readFileSync(`/proc/${pid}/cmdline`, "utf8");
        return [
          ...[...commandLine.matchAll(/mac=([0-9a-f:]{17})/g)].map(([, mac]) => mac),
          ...[...commandLine.matchAll(/hostfwd=tcp:[^:]*:(\d+)/g)].map(([, port]) => port),
          ...kinds.flatMap((kind) => [...environment.things(kind).keys()]),
          ...[(await environment.outputs())["hostId"], (await environment.outputs())["url"]],
        ];
      }),
    );
    expect(facts[0]!.length).toBeGreaterThanOrEqual(7);
    expect(facts[0]!.filter((fact) => facts[1]!.includes(fact))).toEqual([]);
  });
});

describe("a container that is stopped in the host behind the agent", () => {
  const container = async () => (await first.agent((client) => client.getGroup("web")))!.status!.containers[0]!;
  const stop = async (id: string) => {
    await probes
      .get(first)!
      .output("/usr/bin/ctr", "--namespace", "k8s.io", "tasks", "kill", "--signal", "SIGKILL", id);
    return Date.now();
  };
  beforeAll(async () => {
    await attach(first);
  });

  it("is restored within 30 s, without Pulumi", async () => {
    const { containerId } = await container();
    const stopped = await stop(containerId);
    await eventually("another container runs", 30, async () => {
      const { containerId: now, phase } = await container();
      return now !== containerId && phase === ContainerPhase.RUNNING ? true : undefined;
    });
    expect(Date.now() - stopped).toBeLessThanOrEqual(30_000);
    await eventually("the group serves", 30, () => get(first));
  });

  it("P1, G12: is named by preview with property and value while the agent pauses, and restored after that", async () => {
    const started = Date.now();
    const drift = /observedContainers[\s\S]*state[\s\S]*"?Terminated/;
    const before = await first.pulumi("preview", "--diff");
    await first.agent((client) => client.suspendReconcile(120));
    await stop((await container()).containerId);
    await eventually("the host has seen it", 30, async () =>
      (await container()).phase === ContainerPhase.RUNNING ? undefined : true,
    );
    const preview = await first.pulumi("preview", "--diff");
    expect(preview.exitCode, preview.stderr).toBe(0);
    await first.agent((client) => client.suspendReconcile(0));
    const page = await eventually("the group serves", 60, () => get(first));
    const row = {
      observed: `container killed: named in preview: ${drift.test(preview.stdout)}; restored by the host: ${/Palisade/.test(page)}`,
      control: `before that: named in preview: ${drift.test(before.stdout)}`,
      evidence: drift.exec(preview.stdout)?.[0].replace(/\s+/g, " ").slice(0, 200) ?? "no drift in the preview",
    };
    const pass = drift.test(preview.stdout) && !drift.test(before.stdout);
    report({
      ...{ table: "groups", id: "G12", part: "killed", ...row, pass, seconds: (Date.now() - started) / 1000 },
      missing: "image, environment or limit changed by hand on a real host",
    });
    prove({ id: "P1", part: "container", ...row }, started, pass);
  });
});

describe("attacks", () => {
  beforeAll(async () => {
    for (const environment of both) await attach(environment);
  });
  bootFacts(attacked(first), attacked(second));
  executionAttacks(attacked(first), attacked(second));
  containerAttacks(attacked(first), attacked(second));
  datapathAttacks(attacked(first));
  kernelAttacks(attacked(first), attacked(second));
  roleAttacks(attacked(first), attacked(second));
  initrdAttacks(attacked(first), attacked(second));
});

otherModes(attacked(first), attacked(second), attach);

describe("two stacks", () => {
  it("keep serving when the other is destroyed", async () => {
    const down = await second.down();
    expect(down.exitCode, down.stderr).toBe(0);
    for (const kind of kinds) expect(second.things(kind).size, kind).toBe(0);
    expect(await get(first)).toMatch(/Palisade/);
  });
});
