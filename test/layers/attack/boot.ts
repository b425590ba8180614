/**
 * Boots that have to end in the initrd: a machine with an altered, but validly signed, kernel image runs alone, without
 * disk state, network or agent, until it says why it stops.
 */
import { spawn } from "node:child_process";
import { copyFileSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { cacheDirectory, repository, type Environment } from "../../support/hosts/environment.js";
import { storeProbeImage } from "../../support/hosts/probe-image.js";
import { admit, prove } from "../../support/acceptance/prove.js";
import { report } from "../../support/acceptance/report.js";
import { type AttackedHost } from "./hosts.js";

const firmware = "/usr/share/OVMF/OVMF_CODE_4M.secboot.fd";
const definition = path.join(repository, "hosts/image");

/** What differs from the image as it was built. */
interface Alteration {
  /** Changes a copy of the operator's keys. */
  keys?: (folder: string) => Promise<void>;
  /** The text of the integrity policy, signed like the real one. */
  policy?: string;
}

export class Boots {
  private readonly work: string;

  constructor(private readonly environment: Environment) {
    this.work = mkdtempSync(path.join(environment.root, "boots-"));
  }

  /** The console of a machine that boots the altered image, until it is off or systemd runs. */
  async console(name: string, alteration: Alteration): Promise<string> {
    const { digest, rootHash } = await storeProbeImage(this.environment, "enforce");
    const folder = path.join(this.work, name);
    mkdirSync(folder);
    const image = path.join(this.environment.state, "images", digest.replace("sha256:", ""));
    const disk = path.join(folder, "disk.raw");
    await this.succeed("cp", ["--sparse=always", path.join(image, "disk.raw"), disk]);
    copyFileSync(path.join(image, "OVMF_VARS.fd"), path.join(folder, "OVMF_VARS.fd"));
    await this.alter(folder, image, rootHash, alteration);
    const console = await this.boot(folder);
    rmSync(disk);
    return console;
  }

  private async alter(folder: string, image: string, rootHash: string, { keys, policy }: Alteration): Promise<void> {
    const alteredKeys = path.join(folder, "keys");
    cpSync(path.join(this.environment.home, "keys"), alteredKeys, { recursive: true });
    await keys?.(alteredKeys);
    const alteredDefinition = path.join(folder, "definition");
    cpSync(definition, alteredDefinition, { recursive: true });
    if (policy !== undefined) writeFileSync(path.join(alteredDefinition, "ipe-policy"), policy);
    const { builtFrom } = JSON.parse(readFileSync(path.join(image, "image.json"), "utf8")) as {
      builtFrom: { tools: string; sourceDateEpoch: number };
    };
    const tools = path.join(cacheDirectory(), "image", builtFrom.tools);
    const script = `
      export SOURCE_DATE_EPOCH=${builtFrom.sourceDateEpoch}
      disk=/work/disk.raw
      source /definition/scripts/esp.sh
      mcopy -i "$esp" ::/EFI/BOOT/BOOTX64.EFI /work/signed.efi
      /definition/scripts/boot-image.sh /definition /work/signed.efi ${rootHash} enforce /keys /work/altered.efi
      mcopy -o -i "$esp" /work/altered.efi ::/EFI/BOOT/BOOTX64.EFI`;
    await this.succeed(path.join(definition, "scripts/in-root.sh"), [
      ...[tools, `${alteredDefinition}:/definition:ro`, `${alteredKeys}:/keys:ro`, `${folder}:/work`],
      ...["--", "bash", "-euc", script],
    ]);
  }

  private async boot(folder: string): Promise<string> {
    const log = path.join(folder, "console.log");
    const qemu = spawn(
      "qemu-system-x86_64",
      [
        ...["-nodefaults", "-display", "none", "-machine", "q35,smm=on", "-cpu", "max"],
        // One thread and one processor, as for hosts: now and then a kernel that patches itself beside another thread
        // dies early.
        ...["-accel", "tcg,thread=single"],
        ...["-m", "1024", "-global", "driver=cfi.pflash01,property=secure,value=on"],
        ...["-drive", `if=pflash,unit=0,format=raw,readonly=on,file=${firmware}`],
        ...["-drive", "if=pflash,unit=1,format=raw,file=OVMF_VARS.fd"],
        ...["-drive", "if=none,id=image,format=raw,file=disk.raw,readonly=on"],
        ...["-device", "virtio-blk-pci,drive=image,bootindex=1", "-no-reboot"],
        ...["-chardev", `file,id=console,path=${log}`, "-serial", "chardev:console"],
      ],
      { cwd: folder, stdio: "ignore" },
    );
    const read = () => (existsSync(log) ? readFileSync(log, "latin1") : "");
    const ended = new Promise<void>((resolve) => qemu.once("exit", () => resolve()));
    const decided = (async () => {
      const deadline = Date.now() + 180_000;
      while (qemu.exitCode === null && Date.now() < deadline && !read().includes("starting systemd")) {
        await new Promise((resolve) => setTimeout(resolve, 500));
      }
    })();
    await Promise.race([ended, decided]);
    qemu.kill("SIGKILL");
    await ended;
    return read();
  }

  private async succeed(command: string, args: string[]): Promise<void> {
    const { exitCode, stderr } = await this.environment.run(command, args);
    if (exitCode !== 0) throw new Error(`${path.basename(command)}: ${stderr}`);
  }
}

/** The lines of the initrd's program, without the kernel's. */
const said = (console: string) =>
  console
    .split("\n")
    .filter((line) => line.includes("palisade-initrd:"))
    .map((line) => line.replace(/.*palisade-initrd: /, "").trim());

/** What the firmware and the kernel say of the boot, each read by the probe and not by the agent. */
export function bootFacts(host: AttackedHost): void {
  describe("the boot", () => {
    it("B6: Secure Boot is on, and the firmware is not in setup mode", async () => {
      const started = Date.now();
      const variable = async (name: string) => {
        const content = await host
          .probe()
          .read(`/sys/firmware/efi/efivars/${name}-8be4df61-93ca-11d2-aa0d-00e098032b8c`);
        // Four bytes of attributes, then the value.
        return content.length === 5 ? content.charCodeAt(4) : -1;
      };
      const [secureBoot, setupMode] = [await variable("SecureBoot"), await variable("SetupMode")];
      const facts = await host.environment.agent((client) => client.getIntegrity());
      prove(
        {
          id: "B6",
          observed: `SecureBoot ${secureBoot}, SetupMode ${setupMode}; the agent reports the same`,
          evidence: `efivarfs: SecureBoot=${secureBoot} SetupMode=${setupMode}`,
        },
        started,
        secureBoot === 1 && setupMode === 0 && facts.secureBoot && !facts.setupMode,
      );
    });

    it("V8: the root's verity device carries the description of a signature", async () => {
      const started = Date.now();
      const probe = host.probe();
      const root = (await probe.read("/proc/1/mountinfo")).split("\n").find((line) => line.split(" ")[4] === "/")!;
      const device = /^\d+ \d+ (\d+:\d+) /.exec(root)![1]!;
      const name = (await probe.read(`/sys/dev/block/${device}/dm/name`)).trim();
      const table = (await probe.output("/usr/sbin/dmsetup", "table", name)).trim();
      // The same reader on a device that nobody signed.
      const unsigned = "attack-unsigned";
      // No rule of udev's is there that would confirm it.
      await probe.output("/usr/sbin/dmsetup", "create", unsigned, "--noudevsync", "--table", "0 8 error");
      const other = (await probe.output("/usr/sbin/dmsetup", "table", unsigned)).trim();
      await probe.output("/usr/sbin/dmsetup", "remove", "--noudevsync", unsigned);
      const { root: reported } = await host.environment.agent((client) => client.getIntegrity());
      const isSigned = (text: string) => /^\d+ \d+ verity .*root_hash_sig_key_desc \S+/.test(text);
      prove(
        {
          id: "V8",
          observed: `${name}: ${table}`,
          control: `a device without a signature, read in the same way: ${other}`,
          evidence: table,
        },
        started,
        isSigned(table) && !isSigned(other) && reported!.signatureVerified && reported!.signaturesRequired,
      );
      expect(reported!.mountPoint).toBe("/");
    });

    it("S1: SELinux has a policy and does not enforce it", async () => {
      const started = Date.now();
      const enforces = (await host.probe().read("/sys/fs/selinux/enforce")).trim();
      admit(
        {
          id: "S1",
          observed: `getenforce: ${enforces === "1" ? "Enforcing" : "Permissive"}`,
          evidence: `/sys/fs/selinux/enforce: ${enforces}`,
        },
        started,
        enforces === "1",
      );
    });
  });
}

export function initrdAttacks(environment: Environment): void {
  describe("the initrd", () => {
    it("I13: halts when the integrity policy is not the signed one, or none", async () => {
      const started = Date.now();
      const boots = new Boots(environment);
      const foreign = async (folder: string) => {
        const stem = path.join(folder, "image/ipe-policy");
        const { exitCode, stderr } = await environment.run("openssl", [
          ...["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=Somebody else"],
          ...["-keyout", `${stem}.key`, "-out", `${stem}.crt`],
        ]);
        expect(exitCode, stderr).toBe(0);
      };
      const byForeigner = said(await boots.console("foreign", { keys: foreign }));
      const empty = said(await boots.console("empty", { policy: "" }));
      // The host that was booted from the unaltered image, by the same firmware.
      const machine = environment.folder("virtual-machines");
      const control = said(readFileSync(path.join(machine, "serial.log"), "latin1"));
      const halts = (lines: string[]) =>
        lines.some((line) => /^HALT: activate the integrity policy/.test(line)) &&
        !lines.some((line) => line.includes("starting systemd"));
      prove(
        {
          id: "I13",
          observed: `signed by a foreign key: ${byForeigner.at(-1)}; empty: ${empty.at(-1)}`,
          control: `unaltered: ${control.at(-1)}`,
          evidence: [...byForeigner, ...empty].join("\n"),
        },
        started,
        halts(byForeigner) && halts(empty) && control.some((line) => line.includes("starting systemd")),
      );
      report({
        table: "attack",
        id: "B8",
        observed: `the integrity policy cannot be activated: ${byForeigner.at(-1)}`,
        control: `unaltered: ${control.at(-1)}`,
        evidence: byForeigner.join("\n"),
        pass: true,
        seconds: (Date.now() - started) / 1000,
        missing: "failures of the initrd's other steps",
      });
    });
  });
}
