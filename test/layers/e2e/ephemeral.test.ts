/**
 * Hosts that resume a template: what they share with a host that boots, and what with each other. The template is made
 * by two stacks that want it at the same time; their image has the tests' probe in it.
 */
import { spawn } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { readdirSync, readFileSync, statSync } from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";
import { connect } from "node:tls";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { NestedHost, type NestedHostArgs } from "../../../components/index.js";
import { createLocalBackends } from "../../../provider/local/index.js";
import type { HostConnection } from "../../../provider/backends/index.js";
import { endorsementKey } from "../../../provider/local/hypervisor/qemu/testing.js";
import { ephemeralStack, type EphemeralStack } from "../../../components/testing/index.js";
import type { GetHostResponse, GetIntegrityResponse } from "../../../hosts/api/gen/palisade/agent/v1/agent_pb.js";
import { cacheDirectory, Environment, eventually, isAlive, repository } from "../../support/hosts/environment.js";
import { storeProbeImage } from "../../support/hosts/probe-image.js";
import { Probe } from "../../support/hosts/probe.js";

const environment = new Environment("e2e-ephemeral");
const before = { ...process.env };
let digest = "";
let stacks: EphemeralStack[] = [];
/** Seconds from start to ready, by what was done. */
const seconds: Record<string, number> = {};

const program =
  (args: Partial<NestedHostArgs> = {}) =>
  async () => {
    const host = new NestedHost("host", { image: digest, snapshot: "template", stateDiskGiB: 2, ...args });
    return { connection: host.connection, seconds: host.bootSeconds, powerState: host.powerState };
  };

/** The folders of a stack's machine, as those of any other stack. */
const placeOf = (stack: EphemeralStack) => new Environment(stack.id, environment.root);

async function ask(stack: EphemeralStack): Promise<[GetHostResponse, GetIntegrityResponse]> {
  const backends = createLocalBackends({ stateDirectory: environment.state, cacheDirectory: cacheDirectory() });
  const client = backends.agents.connect(stack.outputs["connection"] as HostConnection);
  try {
    return [await client.getHost(), await client.getIntegrity()];
  } finally {
    client.close();
  }
}

/** The host's public key, hex, as it serves it. */
async function publicKey(stack: EphemeralStack): Promise<string> {
  const { endpoint, clientCertificateFile, clientKeyFile } = stack.outputs["connection"] as HostConnection;
  const { hostname, port } = new URL(endpoint);
  const [cert, key] = [readFileSync(clientCertificateFile), readFileSync(clientKeyFile)];
  const socket = connect({ host: hostname, port: Number(port), cert, key, rejectUnauthorized: false });
  try {
    await new Promise((resolve, reject) => socket.once("secureConnect", resolve).once("error", reject));
    const { raw } = socket.getPeerCertificate();
    return new X509Certificate(raw).publicKey.export({ type: "spki", format: "der" }).toString("hex");
  } finally {
    socket.destroy();
  }
}

/** What must not be the same on two hosts. */
async function unique(stack: EphemeralStack): Promise<Record<string, string>> {
  const probe = await Probe.attach(placeOf(stack));
  try {
    return {
      hostId: (stack.outputs["connection"] as HostConnection).hostId,
      publicKey: await publicKey(stack),
      machineId: await probe.read("/etc/machine-id"),
      bootId: (await ask(stack))[0].bootId,
      endorsementKey: await endorsementKey(path.join(placeOf(stack).folder("virtual-machines"), "tpm")),
    };
  } finally {
    probe.close();
  }
}

beforeAll(async () => {
  process.env["PALISADE_HOME"] = environment.home;
  process.env["PALISADE_STATE"] = environment.state;
  process.env["PATH"] = [path.join(repository, "build/bin"), before["PATH"]].join(":");
  await environment.useTestKeys();
  ({ digest } = await storeProbeImage(environment, "enforce"));
  const options = { onOutput: (text: string) => void process.stdout.write(text) };
  stacks = await Promise.all([ephemeralStack(program(), options), ephemeralStack(program(), options)]);
});

afterAll(async () => {
  for (const stack of stacks) await stack.destroy();
  for (const kind of ["virtual-machines", "state-disks", "ephemeral"]) {
    const left = readdirSync(path.join(environment.state, kind)).filter((name) => !name.startsWith("."));
    expect(left, kind).toEqual([]);
  }
  process.env = { ...before };
  environment.remove();
  process.stdout.write(`\nseconds to ready: ${JSON.stringify(seconds)}\n`);
});

describe("two clones of a template", () => {
  it("were resumed, not booted, side by side", async () => {
    for (const [index, stack] of stacks.entries()) {
      seconds[`clone ${index + 1}, beside the other`] = Number(stack.outputs["seconds"]);
      // A template has a console of its own.
      const console = readFileSync(path.join(placeOf(stack).folder("virtual-machines"), "serial.log"), "utf8");
      expect(console).not.toMatch(/palisade-initrd/);
      expect(console).toMatch(/released as a host of its own/);
    }
  });

  it("report the same integrity, down to the registers of the TPM", async () => {
    const [[, first], [, second]] = await Promise.all([ask(stacks[0]!), ask(stacks[1]!)]);
    expect(first.secureBoot && first.root!.signatureVerified && first.ipe!.enforcing).toBe(true);
    expect(first.lockdown).toBe("integrity");
    expect(Object.keys(first.pcrs).length).toBeGreaterThanOrEqual(8);
    expect(second).toEqual(first);
  });

  it("share no id, key or random number", async () => {
    const [first, second] = [await unique(stacks[0]!), await unique(stacks[1]!)];
    for (const [what, value] of Object.entries(first)) {
      expect(value, what).not.toBe("");
      expect(value, what).not.toBe(second[what]);
    }
  });

  it("know the time, though the template's clock stopped long before", async () => {
    const templates = path.join(cacheDirectory(), "templates");
    const newest = Math.max(
      ...readdirSync(templates)
        .filter((name) => !name.startsWith("."))
        .map((name) => statSync(path.join(templates, name, "state")).mtimeMs),
    );
    expect(Date.now() - newest, "the template has aged").toBeGreaterThan(5000);
    for (const stack of stacks) {
      const [{ time }] = await ask(stack);
      expect(Math.abs(Number(time!.seconds) - Date.now() / 1000)).toBeLessThan(3);
    }
  });

  it("have no port left on which they could wait again", async () => {
    const probe = await Probe.attach(placeOf(stacks[0]!));
    try {
      const { stdout } = await probe.run(
        "/usr/bin/systemctl",
        "show",
        "--property=ActiveState",
        "palisade-template.service",
      );
      expect(stdout.trim()).toBe("ActiveState=active");
      await expect(probe.read("/sys/class/virtio-ports/vport0p30/name")).rejects.toThrow();
    } finally {
      probe.close();
    }
  });
});

describe("a clone that is switched off and on", () => {
  it("boots as any host, is the same host, and measures what its template measured", async () => {
    const [stack] = stacks;
    const [, resumed] = await ask(stack!);
    const { hostId } = stack!.outputs["connection"] as HostConnection;
    await stack!.up(program({ powerState: "stopped" }));
    expect(stack!.outputs["powerState"]).toBe("stopped");
    await stack!.up();
    seconds["the same host, booted"] = Number(stack!.outputs["seconds"]);
    expect((stack!.outputs["connection"] as HostConnection).hostId).toBe(hostId);
    const [, booted] = await ask(stack!);
    expect(booted).toEqual(resumed);
  });
});

describe("a runner that is killed", () => {
  it("had a host within a quarter of a boot, and leaves nothing behind", async () => {
    const file = path.join(repository, "dist/test/layers/e2e/ephemeral-runner.js");
    const runner = spawn(process.execPath, [file, digest], { stdio: ["ignore", "pipe", "inherit"] });
    let place: Environment;
    let pids: number[] = [];
    try {
      const line = await new Promise<string>((resolve, reject) => {
        createInterface({ input: runner.stdout }).once("line", resolve);
        runner.once("exit", (code) => reject(new Error(`the runner ended with ${code}`)));
      });
      const { id, seconds: took } = JSON.parse(line) as { id: string; seconds: number };
      seconds["clone 3, alone"] = took;
      place = new Environment(id, environment.root);
      pids = ["qemu", "swtpm"].map((name) => place.processId("virtual-machines", name));
    } finally {
      runner.kill("SIGKILL");
    }
    await eventually("its host is gone", 120, async () =>
      place.things("virtual-machines").size + place.things("state-disks").size > 0 ? undefined : true,
    );
    expect(pids.filter(isAlive)).toEqual([]);
    expect(seconds["clone 3, alone"]).toBeLessThan(seconds["the same host, booted"]! / 4);
  });
});

describe("the example of docs/testing.md", () => {
  it("passes as it is", async () => {
    environment.variables["HOST_IMAGE"] = digest;
    const config = path.join(repository, "test/layers/e2e/example.config.mts");
    const { exitCode, stdout } = await environment.run("node_modules/.bin/vitest", ["run", "--config", config]);
    expect(exitCode, stdout).toBe(0);
  });
});
