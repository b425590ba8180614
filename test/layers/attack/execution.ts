/**
 * Rows I1 to I6 and I9 to I16: code of unproven integrity on the host. The attacker is root, started by init. Each
 * attack runs on a host as it is delivered (`enforce`), where any layer may refuse it; on one where the other layers
 * are off (`isolated`: places mounted with exec, nothing given up by the initrd, SELinux permissive), so that the
 * integrity policy itself is seen to refuse; and there once more with the policy not enforced, where it has to succeed.
 */
import { execFileSync } from "node:child_process";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { beforeAll, describe, expect, it } from "vitest";
import { repository, eventually } from "../../support/hosts/environment.js";
import type { Probe } from "../../support/hosts/probe.js";
import { admit, prove } from "../../support/acceptance/prove.js";
import { harmless, type AttackedHost } from "./hosts.js";

const enforceSwitch = "/sys/kernel/security/ipe/enforce";
const policies = "/sys/kernel/security/ipe/policies";
const hex = (content: Buffer | string) => Buffer.from(content).toString("hex");

/** Runs something on the isolated host while the policy only audits. */
export async function unenforced<T>(probe: Probe, work: () => Promise<T>): Promise<T> {
  expect(await probe.attack("write", enforceSwitch, hex("0"))).toBe("done");
  try {
    return await work();
  } finally {
    expect(await probe.attack("write", enforceSwitch, hex("1"))).toBe("done");
  }
}

/** An attack with its three observations. */
interface Attempt {
  /** As delivered. */
  full: string;
  /** By the policy alone. */
  isolated: string;
  /** With the policy not enforced either. */
  control: string;
  /** An audit record of the isolated attempt. */
  record: string | undefined;
}

export function executionAttacks(enforce: AttackedHost, isolated: AttackedHost): void {
  /** @param mention - text of the audit record, e.g. the path. */
  async function attempt(mention: string, run: (probe: Probe) => Promise<string>): Promise<Attempt> {
    const full = await run(enforce.probe());
    const probe = isolated.probe();
    await probe.denials("");
    const alone = await run(probe);
    const [record] = await probe.denials(mention);
    return { full, isolated: alone, control: await unenforced(probe, () => run(probe)), record };
  }

  const asProof = (id: string, { full, isolated: alone, control, record }: Attempt, part?: string) => ({
    id,
    ...(part === undefined ? {} : { part }),
    observed: `${part === undefined ? "" : `${part}: `}full stack ${full}; policy alone ${alone}`,
    control: `policy not enforced: ${control}`,
    evidence: record ?? "no audit record",
  });

  /** What the kernel of the host as delivered said since its boot, before the first attack. */
  let bootJournal: string[] = [];
  const kernelJournal = () => enforce.probe().journal("-k");
  const records = (journal: string[]) => journal.filter((line) => line.includes("type=1420"));

  describe("code of unproven integrity on the host", () => {
    let places: string[] = [];

    beforeAll(async () => {
      bootJournal = await kernelJournal();
      // The kernel leaves records out when they come too fast and no audit daemon takes them.
      await isolated.probe().write("/proc/sys/kernel/printk_ratelimit", "0");
      places = await writablePlaces(isolated.probe());
      for (const place of places) expect(await isolated.probe().attack("remount", place, "exec"), place).toBe("done");
    });

    it("I1: is not executed from any writable place", async () => {
      const started = Date.now();
      expect(places).toEqual(expect.arrayContaining(["/var", "/var/lib/palisade", "/run", "/tmp", "/dev/shm"]));
      expect(await writablePlaces(enforce.probe())).toEqual(places);
      const attempts: [string, Attempt][] = [];
      for (const place of places) {
        const file = path.join(place, "attack");
        const made = await attempt(file, async (probe) => {
          expect(await probe.attack("copy", harmless, file)).toBe("done");
          return probe.attack("run", file, "do", "mmap-anonymous");
        });
        attempts.push([place, made]);
      }
      prove(
        {
          id: "I1",
          observed: attempts
            .map(([place, { full, isolated: alone }]) => `${place}: ${full}, policy alone ${alone}`)
            .join("; "),
          control: `policy not enforced: ${attempts.map(([place, { control }]) => `${place} ${control}`).join(", ")}`,
          evidence: attempts[0]![1].record ?? "no audit record",
        },
        started,
        attempts.every(
          ([, { full, isolated: alone, control, record }]) =>
            full === "EACCES" && alone === "EACCES" && control === "done" && record !== undefined,
        ),
      );
    });

    it("I3: is not mapped by the dynamic loader, named or preloaded", async () => {
      const started = Date.now();
      const dynamic = "/usr/bin/crun";
      const loader = "/lib64/ld-linux-x86-64.so.2";
      const library = "/usr/lib/x86_64-linux-gnu/libm.so.6";
      const named = await attempt("/run/attack-dynamic", async (probe) => {
        expect(await probe.attack("copy", dynamic, "/run/attack-dynamic")).toBe("done");
        const { exitCode, stderr } = await probe.run(loader, "/run/attack-dynamic", "--version");
        return exitCode === 0 ? "done" : stderr.trim();
      });
      prove(asProof("I3", named, "ld.so"), started, refused(named, /failed to map|Permission denied/));
      const preloaded = await attempt("/run/attack.so", async (probe) => {
        expect(await probe.attack("copy", library, "/run/attack.so")).toBe("done");
        const { stderr } = await probe.runWith({ LD_PRELOAD: "/run/attack.so" }, dynamic, "--version");
        return stderr.includes("cannot be preloaded") ? stderr.trim().split("\n")[0]! : "done";
      });
      prove(asProof("I3", preloaded, "LD_PRELOAD"), started, refused(preloaded, /cannot be preloaded/));
    });

    it("I4: is not executed from anonymous memory files", async () => {
      const started = Date.now();
      const made = await attempt("ipe_hook=BPRM_CHECK", (probe) => probe.attack("memfd", harmless));
      prove(asProof("I4", made), started, refused(made, /^EACCES$/));
    });

    it("I5: is not made in memory", async () => {
      const started = Date.now();
      for (const part of ["mmap-anonymous", "mprotect-anonymous"]) {
        const made = await attempt("", (probe) => probe.attack(part));
        prove(asProof("I5", made, part), started, refused(made, /^EACCES$/));
      }
      for (const [part, ...attack] of [["proc-mem"], ["ptrace", harmless]] as const) {
        const full = await enforce.probe().attack(part, ...attack);
        const control = await isolated.probe().attack(part, ...attack);
        for (const id of part === "proc-mem" ? ["I5", "I16"] : ["I5"]) {
          prove(
            {
              id,
              part,
              observed: `${part}: full stack ${full}`,
              control: `nothing given up by the initrd: ${control}`,
              evidence: "errors of write(2) to /proc/self/mem and of ptrace(2); the policy is not asked about either",
            },
            started,
            full !== "done" && control === "done",
          );
        }
      }
      const full = await enforce.probe().attack("mprotect-file", harmless);
      for (const id of ["I5", "I16"]) {
        admit(
          {
            id,
            part: "mprotect-file",
            observed: `mprotect-file: ${full}`,
            evidence:
              "a private mapping of a signed file counts as the file for the integrity policy even after it was written to; SELinux's execmod closes it, once SELinux enforces",
          },
          started,
          full !== "done",
        );
      }
    });

    it("I6: is not executed as a script", async () => {
      const started = Date.now();
      const made = await attempt("/run/attack.script", async (probe) => {
        await probe.write("/run/attack.script", `#!${harmless} do\n`);
        const result = await probe.run("/run/attack.script");
        return result.error === undefined ? "done" : /permission denied/.test(result.error) ? "EACCES" : result.error;
      });
      prove(asProof("I6", made), started, refused(made, /^EACCES$/));
    });
  });

  describe("the initrd's file system, below the root", () => {
    it.each(["unmount", "descriptor", "pivot", "kernel-thread"])(
      "I15: executes nothing that root writes there, reached by %s",
      async (way) => {
        const started = Date.now();
        for (const action of ["run", "map"]) {
          const made = await attempt('dev="rootfs"', (probe) => probe.attack("rootfs", way, action, harmless));
          // Where the kernel does not let root in at all, nothing is written, and the policy is not asked.
          const reached = made.control === "done";
          prove(
            asProof("I15", made, `${way}, ${action}`),
            started,
            reached
              ? refused(made, /^EACCES$/)
              : !["unmount", "descriptor"].includes(way) &&
                  [made.full, made.isolated, made.control].every((answer) => /^not /.test(answer)),
          );
        }
      },
    );
  });

  describe("the integrity policy", () => {
    const folder = mkdtempSync(path.join(tmpdir(), "palisade-policies-"));
    const foreign = path.join(folder, "foreign");
    const keys = (name: string) => path.join(isolated.environment.home, "keys", "image", name);
    const current = readFileSync(path.join(repository, "hosts/image/ipe-policy"), "utf8");

    /** PKCS#7 as hosts/image/scripts/boot-image.sh makes it. */
    function signed(policy: string, key = keys("ipe-policy")): Buffer {
      const file = path.join(folder, "policy");
      writeFileSync(file, policy);
      return execFileSync("openssl", [
        ...["smime", "-sign", "-binary", "-noattr", "-nodetach", "-nosmimecap", "-md", "sha256", "-outform", "der"],
        ...["-signer", `${key}.crt`, "-inkey", `${key}.key`, "-in", file],
      ]);
    }
    const named = (name: string, version = "9.0.0") =>
      current.replace(/^policy_name=\S+ policy_version=\S+/, `policy_name=${name} policy_version=${version}`);
    const load = (probe: Probe, policy: Buffer) =>
      probe.attack("write", "/sys/kernel/security/ipe/new_policy", hex(policy));

    beforeAll(() => {
      execFileSync("openssl", [
        ...["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=Somebody else"],
        ...["-keyout", `${foreign}.key`, "-out", `${foreign}.crt`],
      ]);
      return () => rmSync(folder, { recursive: true, force: true });
    });

    it("I9: is taken from its signer only, and only well-formed", async () => {
      const started = Date.now();
      const probe = isolated.probe();
      const unsigned = await load(probe, Buffer.from(named("unsigned")));
      const byForeigner = await load(probe, signed(named("foreign"), foreign));
      const malformed = await load(probe, signed("policy_name=malformed policy_version=1.0.0\nnonsense\n"));
      const full = await load(enforce.probe(), signed(named("valid")));
      const control = await load(probe, signed(named("valid")));
      prove(
        {
          id: "I9",
          observed: `unsigned ${unsigned}, wrong key ${byForeigner}, malformed ${malformed}; full stack, even validly signed: ${full}`,
          control: `validly signed, nothing given up by the initrd: ${control}`,
          evidence: "errors of write(2) to /sys/kernel/security/ipe/new_policy",
        },
        started,
        unsigned === "EBADMSG" &&
          byForeigner === "ENOKEY" &&
          malformed === "EBADMSG" &&
          full === "EPERM" &&
          control === "done",
      );
    });

    it("I10: is not replaced by an older one", async () => {
      const started = Date.now();
      const probe = isolated.probe();
      const update = (policy: Buffer) => probe.attack("write", `${policies}/palisade/update`, hex(policy));
      const older = await update(signed(named("palisade", "0.9.0")));
      const [, feature, patch] = /policy_version=(\d+\.\d+)\.(\d+)/.exec(current)!;
      const control = await update(signed(named("palisade", `${feature}.${Number(patch) + 1}`)));
      prove(
        {
          id: "I10",
          observed: `older ${older}`,
          control: `newer ${control}`,
          evidence: "errors of write(2) to ipe/policies/palisade/update",
        },
        started,
        older === "ESTALE" && control === "done",
      );
    });

    it("I11: is not switched off or replaced on a running host", async () => {
      const started = Date.now();
      const probe = enforce.probe();
      const switched = await probe.attack("write", enforceSwitch, hex("0"));
      const lax = named("lax").replaceAll("DENY", "ALLOW");
      const loaded = await load(probe, signed(lax));
      const control = await isolated.probe().attack("write", enforceSwitch, hex("0"));
      expect(await isolated.probe().attack("write", enforceSwitch, hex("1"))).toBe("done");
      const state = (await probe.read(enforceSwitch)).trim();
      prove(
        {
          id: "I11",
          observed: `0 to enforce: ${switched}; validly signed lax policy: ${loaded}; enforce is ${state}`,
          control: `nothing given up by the initrd: 0 to enforce: ${control}`,
          evidence: (await probe.read("/proc/1/status")).match(/CapBnd.*/)?.[0] ?? "",
        },
        started,
        switched === "EPERM" && loaded === "EPERM" && state === "1" && control === "done",
      );
    });

    it("I11: is not switched off by a program that the kernel starts with its own capabilities", async () => {
      const started = Date.now();
      const set = (await enforce.probe().read("/proc/sys/kernel/usermodehelper/bset")).trim().split(/\s+/);
      const back = await enforce
        .probe()
        .attack("write", "/proc/sys/kernel/usermodehelper/bset", hex("4294967295 511\n"));
      const after = (await enforce.probe().read("/proc/sys/kernel/usermodehelper/bset")).trim().split(/\s+/);
      const macAdmin = 1 << (33 - 32);
      const free = (await isolated.probe().read("/proc/sys/kernel/usermodehelper/bset")).trim().split(/\s+/);
      prove(
        {
          id: "I11",
          part: "usermodehelper",
          observed: `capabilities of helpers: ${set.join(" ")}; put back: ${back}, then ${after.join(" ")}`,
          control: `nothing given up by the initrd: ${free.join(" ")}`,
          evidence: "/proc/sys/kernel/usermodehelper/bset",
        },
        started,
        (Number(set[1]) & macAdmin) === 0 && (Number(after[1]) & macAdmin) === 0 && (Number(free[1]) & macAdmin) !== 0,
      );
    });

    it("I12: is not deleted while it is active", async () => {
      const started = Date.now();
      const probe = isolated.probe();
      const remove = (name: string) => probe.attack("write", `${policies}/${name}/delete`, hex("1"));
      const active = await remove("palisade");
      const full = await enforce.probe().attack("write", `${policies}/palisade/delete`, hex("1"));
      const control = await remove("valid");
      prove(
        {
          id: "I12",
          observed: `active policy ${active}; full stack ${full}`,
          control: `a policy that is not active ${control}`,
          evidence: "errors of write(2) to ipe/policies/palisade/delete",
        },
        started,
        active === "EPERM" && full === "EPERM" && control === "done",
      );
    });

    it("I14: does not stand in the way of any service", async () => {
      const started = Date.now();
      const probe = enforce.probe();
      // An attack of its own shows that the journal holds such records; again, as the kernel leaves out what comes too
      // fast.
      const journal = await eventually("a record of an attack", 60, async () => {
        expect(await probe.attack("memfd", harmless)).toBe("EACCES");
        const read = await kernelJournal();
        return records(read).length > 0 ? read : undefined;
      });
      // Every service and a group have started by then, and no attack has.
      const unexpected = records(bootJournal);
      const failed = (
        await probe.output("/usr/bin/systemctl", "list-units", "--state=failed", "--plain", "--no-legend")
      ).trim();
      const all = records(journal).length;
      prove(
        {
          id: "I14",
          observed: `${unexpected.length} records from the boot to the first attack, failed units: ${failed === "" ? "none" : failed}`,
          control: `the attacks above left ${all} records in the same journal`,
          evidence: unexpected[0] ?? "none",
        },
        started,
        bootJournal.some((line) => /palisade-initrd|systemd/.test(line)) &&
          unexpected.length === 0 &&
          failed === "" &&
          all > 0,
      );
    });
  });
}

const refused = ({ full, isolated, control, record }: Attempt, how: RegExp): boolean =>
  full !== "done" && how.test(isolated) && control === "done" && record !== undefined;

/** Mount points that are writable and hold files. */
async function writablePlaces(probe: Probe): Promise<string[]> {
  const lines = (await probe.read("/proc/self/mountinfo")).split("\n").filter(Boolean);
  const mounts = lines.map((line) => {
    const [before, after] = line.split(" - ");
    return { place: before!.split(" ")[4]!, options: before!.split(" ")[5]!, kind: after!.split(" ")[0]! };
  });
  const holds = ["tmpfs", "ext4", "devtmpfs", "overlay", "ramfs"];
  const found = mounts.filter(
    ({ place, options, kind }) =>
      holds.includes(kind) &&
      options.split(",")[0] === "rw" &&
      !/^\/run\/(containerd|credentials)|^\/var\/lib\/palisade\/.*shm/.test(place),
  );
  return [...new Set(found.map(({ place }) => place))].sort();
}
