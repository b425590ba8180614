/**
 * The other modes of a host, each another signed kernel image of the same root file system: what programs that make
 * code at run time come to in each (Node.js and Java, real ones), and row I2. Ends with the second host in mode audit.
 */
import { beforeAll, describe, expect, it } from "vitest";
import { createLocalBackends } from "../../../provider/local/index.js";
import type { SealObserved } from "../../../provider/backends/index.js";
import { operation } from "../contract/subject.js";
import { cacheDirectory, type Environment } from "../../support/hosts/environment.js";
import { storeProbeImage, type Mode } from "../../support/hosts/probe-image.js";
import type { Probe } from "../../support/hosts/probe.js";
import { admit, prove } from "../../support/acceptance/prove.js";
import { Groups, harmless, Images, type AttackedHost } from "./hosts.js";

/** Java takes minutes on an emulated host, and shows of the kernel what Node.js shows. */
const full = process.env["PALISADE_FULL"] === "1";

/** Programs whose engine writes machine code, as users run them. */
const programs = {
  node: { packages: ["nodejs"], command: ["/usr/bin/node", "-e", "console.log([1, 2, 3].map((n) => n * n).join())"] },
  java: {
    packages: ["openjdk-21-jre-headless"],
    command: [
      ...["/usr/bin/keytool", "-genkeypair", "-alias", "a", "-keyalg", "EC", "-keystore", "/tmp/store"],
      ...["-storepass", "changeit", "-dname", "CN=test"],
    ],
  },
};

export function otherModes(
  enforce: AttackedHost,
  other: AttackedHost,
  attach: (environment: Environment) => Promise<Probe>,
): void {
  const sealed = new Map<string, SealObserved>();
  const groupsOf = new Map<AttackedHost, { images: Images; groups: Groups }>();

  const of = (host: AttackedHost) => {
    let found = groupsOf.get(host);
    if (!found) {
      const images = new Images(host.environment);
      found = { images, groups: new Groups(host.environment, images) };
      groupsOf.set(host, found);
    }
    return found;
  };

  async function image(host: AttackedHost, program: keyof typeof programs): Promise<SealObserved> {
    const key = `${host.environment.stack}/${program}`;
    let seal = sealed.get(key);
    if (!seal) {
      const { images } = of(host);
      const { state: stateDirectory } = host.environment;
      const backends = createLocalBackends({ stateDirectory, cacheDirectory: cacheDirectory() });
      const { digest } = await backends.images.buildDebianImage(operation(program), {
        ...{ registry: await images.access(), repository: `attack/${program}`, tag: "latest", suite: "trixie" },
        ...{ packages: programs[program].packages, entrypoint: [], command: [], environment: {}, files: {} },
        workingDirectory: "/",
      });
      seal = await images.seal(`attack/${program}`, digest);
      sealed.set(key, seal);
    }
    return seal;
  }

  /** An `up` with the image of another mode: the machine boots another kernel image, the state disk stays. */
  async function boot(host: AttackedHost, mode: Mode): Promise<void> {
    const { digest } = await storeProbeImage(host.environment, mode);
    host.environment.configure({ environment: "local", imageDigest: digest });
    const up = await host.environment.up();
    expect(up.exitCode, up.stderr).toBe(0);
    expect((await host.environment.outputs())["mode"]).toBe(`${mode}-probe`);
    await attach(host.environment);
  }

  async function run(host: AttackedHost, program: keyof typeof programs, ...options: string[]) {
    const { reference } = await image(host, program);
    const [first, ...rest] = programs[program].command;
    // Declared anew and not removed, as an image that no group names is removed from the host and would be fetched
    // again.
    const { groups } = of(host);
    await groups.declare(program, reference, [first!, ...options, ...rest]);
    return groups.outcome(program, 400);
  }

  describe("a host that enforces", () => {
    it("does not run Node.js with its compiler, and runs it without", async () => {
      const compiling = await run(enforce, "node");
      expect(compiling.exitCode, compiling.output).not.toBe(0);
      const interpreting = await run(enforce, "node", "--jitless");
      expect(interpreting.exitCode, interpreting.output).toBe(0);
      expect(interpreting.output).toContain("1,4,9");
    });

    it.runIf(full)("does not run Java", async () => {
      const { exitCode, output } = await run(enforce, "java");
      expect(exitCode, output).not.toBe(0);
    });
  });

  /** A preview of the stack of a host, with its image and its memory, in MiB. */
  async function preview(host: AttackedHost, imageDigest: string, memoryMiB?: string): Promise<string> {
    host.environment.configure({ environment: "local", imageDigest, ...(memoryMiB ? { memoryMiB } : {}) });
    const { exitCode, stdout, stderr } = await host.environment.pulumi("preview", "--diff");
    expect(exitCode, stderr).toBe(0);
    // What a change means for the machine is a message beside the diff.
    return stdout + stderr;
  }

  it("P4: a change that replaces or restarts a host is shown in preview", async () => {
    const started = Date.now();
    const present = await storeProbeImage(other.environment, "debug");
    const next = await storeProbeImage(other.environment, "jit");
    const replaced = await preview(other, next.digest);
    const restarted = await preview(other, present.digest, "2304");
    const unchanged = await preview(other, present.digest);
    const lines = (text: string) => text.split("\n").filter((line) => /imageDigest|memoryMiB/.test(line));
    prove(
      {
        id: "P4",
        observed: `another image: ${lines(replaced).join(" ").trim()}; more memory: ${lines(restarted).join(" ").trim()}`,
        control: `the same program: ${lines(unchanged).length} such lines`,
        evidence: [...lines(replaced), ...lines(restarted)].join("\n"),
      },
      started,
      /imageDigest/.test(replaced) &&
        /replac/.test(replaced) &&
        /memoryMiB/.test(restarted) &&
        /restart/.test(restarted) &&
        lines(unchanged).length === 0,
    );
  });

  describe("a host in mode jit", () => {
    beforeAll(() => boot(other, "jit"));

    it("says so in its facts", async () => {
      const facts = await other.environment.agent((client) => client.getIntegrity());
      expect(facts.mode).toBe("jit");
      expect(facts.ipe!.activePolicy).toBe("palisade-jit");
      expect(facts.ipe!.enforcing).toBe(true);
    });

    it("runs Node.js", async () => {
      const node = await run(other, "node");
      expect(node.exitCode, node.events + node.output).toBe(0);
      expect(node.output).toContain("1,4,9");
    });

    it.runIf(full)("runs Java", async () => {
      const java = await run(other, "java");
      expect(java.exitCode, java.events + java.output).toBe(0);
    });

    it("I5: guarantees less: what a container wrote is executed, as long as SELinux does not enforce", async () => {
      const started = Date.now();
      const { images, groups } = of(other);
      const writes = await images.sealed("attack/jit", [{ "/probe": images.probe }]);
      const command = ["/probe", "do", "copy", "/probe", "/tmp/x", "then", "run", "/tmp/x", "do", "sleep", "0"];
      const { exitCode, output, events } = await groups.run("writes", writes.reference, command);
      // What never ran was not denied.
      expect(exitCode, events).toBeDefined();
      admit(
        {
          id: "I5",
          part: "jit",
          observed: `mode jit: a program copied to a container's /tmp: ${output.trim().split(/\s+/).join(" ")}`,
          evidence: "the policy of mode jit leaves execution open; SELinux is to deny it for every writable file type",
        },
        started,
        exitCode !== 0,
      );
    });

    it("still takes signed layers only", async () => {
      const { images, groups } = of(other);
      const digest = await images.push("attack/unsealed-jit", [{ "/probe": images.probe, "/x": Buffer.from("1") }]);
      const reference = await images.reference("attack/unsealed-jit", digest);
      const { exitCode, events } = await groups.run("unsealed", reference, ["/probe", "do", "sleep", "0"]);
      expect(exitCode, events).toBeUndefined();
      expect(events).toMatch(/ImageRefused/);
    });
  });

  describe("a host in mode audit", () => {
    beforeAll(() => boot(other, "audit"));

    it("I2: executes code of unproven integrity, and records it", async () => {
      const started = Date.now();
      const probe = other.probe();
      expect(await probe.attack("remount", "/run", "exec")).toBe("done");
      await probe.denials("");
      expect(await probe.attack("copy", harmless, "/run/attack")).toBe("done");
      const ran = await probe.attack("run", "/run/attack", "do", "sleep", "0");
      const [record] = await probe.denials("/run/attack");
      const enforced = await enforce.probe().attack("copy", harmless, "/run/attack");
      const control = await enforce.probe().attack("run", "/run/attack", "do", "sleep", "0");
      prove(
        {
          id: "I2",
          observed: `${ran}, record with enforcing=0: ${/enforcing=0/.test(record ?? "")}`,
          control: `on a host that enforces: ${enforced}, ${control}`,
          evidence: record ?? "no audit record",
        },
        started,
        ran === "done" && /enforcing=0/.test(record ?? "") && control === "EACCES",
      );
    });
  });
}
