/**
 * Rows K1, K2, K5 and K7: what reaches the kernel itself. The attacker is root, started by init, as for the rows of
 * execution.ts: on a host as it is delivered, on one where the initrd gave up nothing, and there without the integrity
 * policy.
 */
import { mkdtempSync, readFileSync } from "node:fs";
import path from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { cacheDirectory } from "../../support/hosts/environment.js";
import { namesIn } from "../../support/directory.js";
import type { Probe } from "../../support/hosts/probe.js";
import { prove } from "../../support/acceptance/prove.js";
import { asProof, attempts, refused, unenforced } from "./execution.js";
import type { AttackedHost } from "./hosts.js";

/** What ends a module with a signature (include/linux/module_signature.h): 12 bytes before it say how long that is. */
const signatureEnd = "~Module signature appended~\n";

function unsigned(module: Buffer): Buffer {
  const end = module.length - signatureEnd.length;
  expect(module.subarray(end).toString("latin1")).toBe(signatureEnd);
  return module.subarray(0, end - 12 - module.readUInt32BE(end - 4));
}

export function kernelAttacks(enforce: AttackedHost, isolated: AttackedHost): void {
  const attempt = attempts(enforce, isolated);
  const hosts = [enforce, isolated];
  /** Modules that the distribution signed, and that no host has: one of no use, and the one for registers. */
  let inert: Buffer;
  let registers: Buffer;

  /** Takes modules out of the package of the kernel that the image was built with, as they are without compression. */
  async function modules(...names: string[]): Promise<Buffer[]> {
    const kernelVersion = (await enforce.probe().read("/proc/sys/kernel/osrelease")).trim();
    const packages = path.join(cacheDirectory(), "image/packages/cache/apt/archives");
    const name = namesIn(packages).find((file) => file.startsWith(`linux-image-${kernelVersion}_`));
    expect(name, `the package of kernel ${kernelVersion} in ${packages}`).toBeDefined();
    const folder = mkdtempSync(path.join(enforce.environment.root, "modules-"));
    const wanted = names.map((module) => `./usr/lib/modules/${kernelVersion}/kernel/${module}.ko.xz`);
    const { exitCode, stderr } = await enforce.environment.run("bash", [
      "-euc",
      'set -o pipefail; dpkg-deb --fsys-tarfile "$1" | tar --extract --directory "$2" "${@:3}"; cd "$2"; xz --decompress "${@:3}"',
      ...["modules", path.join(packages, name!), folder, ...wanted],
    ]);
    expect(exitCode, stderr).toBe(0);
    return wanted.map((file) => readFileSync(path.join(folder, file.replace(/\.xz$/, ""))));
  }

  async function place(file: string, content: Buffer): Promise<void> {
    for (const host of hosts) await host.probe().place(file, content);
  }

  describe("the kernel", () => {
    beforeAll(async () => {
      const [crc7, msr] = await modules("lib/crc7", "arch/x86/kernel/msr");
      [inert, registers] = [crc7!, msr!];
    });

    it("K2: takes no signed module from a place that can be written to", async () => {
      const started = Date.now();
      await place("/var/crc7.ko", inert);
      const made = await attempt("op=KMODULE", (probe) => probe.attack("module", "/var/crc7.ko"));
      prove(asProof("K2", made), started, made.full === "EPERM" && refused(made, /^EACCES$/));
    });

    it("K1: takes no unsigned module", async () => {
      const started = Date.now();
      await place("/run/crc7.ko", unsigned(inert));
      const full = await enforce.probe().attack("module", "/run/crc7.ko");
      const [alone, control] = await unenforced(isolated.probe(), async () => [
        await isolated.probe().attack("module", "/run/crc7.ko"),
        await isolated.probe().attack("module", "/var/crc7.ko"),
      ]);
      prove(
        {
          id: "K1",
          observed: `full stack ${full}; lockdown alone ${alone}`,
          control: `the same module with its signature, policy not enforced: ${control}`,
          evidence: "errors of finit_module(2)",
        },
        started,
        full === "EPERM" && /^(EKEYREJECTED|EPERM)$/.test(alone) && control === "done",
      );
    });

    it("K7: takes no module that the distribution signed, from any place", async () => {
      const started = Date.now();
      const ways: [string, (probe: Probe) => Promise<string>][] = [
        ["/dev/shm", (probe) => probe.attack("module", "/dev/shm/crc7.ko")],
        ["memory", (probe) => probe.attack("module-memory", "/var/crc7.ko")],
        ["the initrd's file system", (probe) => probe.attack("rootfs", "unmount", "load", "/var/crc7.ko")],
      ];
      await place("/dev/shm/crc7.ko", inert);
      for (const [part, way] of ways) {
        const made = await attempt("op=KMODULE", way);
        prove(asProof("K7", made, part), started, made.full === "EPERM" && refused(made, /^EACCES$/));
      }
    });

    it("K7: takes no module after the boot, and nobody can change that", async () => {
      const started = Date.now();
      const file = "/proc/sys/kernel/modules_disabled";
      const state = async (host: AttackedHost) => (await host.probe().read(file)).trim();
      const back = await enforce.probe().attack("write", file, Buffer.from("0").toString("hex"));
      const [off, free] = [await state(enforce), await state(isolated)];
      const bounding = async (host: AttackedHost) =>
        BigInt(`0x${/CapBnd:\s+(\w+)/.exec(await host.probe().read("/proc/1/status"))![1]}`);
      const has = (set: bigint, capability: number) => (set >> BigInt(capability)) & 1n;
      // CAP_SYS_MODULE and CAP_SYS_RAWIO.
      const given = [16, 17];
      const [gone, kept] = [await bounding(enforce), await bounding(isolated)];
      prove(
        {
          id: "K7",
          part: "switched off",
          observed: `modules_disabled ${off}, 0 written to it: ${back}; bounding set ${gone.toString(16)}`,
          control: `nothing given up by the initrd: modules_disabled ${free}; bounding set ${kept.toString(16)}`,
          evidence: `${file}, CapBnd of process 1`,
        },
        started,
        off === "1" &&
          back !== "done" &&
          free === "0" &&
          given.every((capability) => has(gone, capability) === 0n && has(kept, capability) === 1n),
      );
    });

    it("K5: gives nobody its memory, ports, registers or place", async () => {
      const started = Date.now();
      await place("/run/msr.ko", registers);
      const lockdown = (of: string) => new RegExp(`Lockdown: palisade-probe: ${of} is restricted`);
      const ways: [string, RegExp, string[]][] = [
        ["/dev/mem", lockdown("/dev/mem,kmem,port"), ["memory"]],
        ["ports", lockdown("raw io port access"), ["ports"]],
        ["write of a register", lockdown("raw MSR access"), ["register", "/run/msr.ko"]],
        // Under Secure Boot the kernel's measurement refuses before lockdown is asked.
        ["kexec", /impossible to appraise a kernel image without a file descriptor/, ["kexec"]],
      ];
      for (const [part, record, attack] of ways) {
        const full = await enforce.probe().attack(...attack);
        const alone = await unenforced(isolated.probe(), () => isolated.probe().attack(...attack));
        const evidence = (await isolated.probe().journal("-k")).find((line) => record.test(line));
        prove(
          {
            id: "K5",
            part,
            observed: `${part}: full stack ${full}; lockdown alone ${alone}`,
            control:
              "no host boots without lockdown; the register was read, by the same descriptor, before it was written",
            evidence: evidence ?? "no line of the kernel's about it",
            missing: "hibernation, bpf_probe_write_user and /proc/kcore",
          },
          started,
          full !== "done" && ["EPERM", "EINVAL", "EACCES"].includes(alone) && evidence !== undefined,
        );
      }
    });
  });
}
