/**
 * Boots that have to end in the initrd: a machine with an altered, but validly signed, kernel image, or with altered
 * variables of the firmware, runs alone, without disk state, network or agent, until it says why it stops.
 */
import { spawn } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { copyFileSync, cpSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { describe, expect, it } from "vitest";
import { signatureList } from "../../../provider/local/firmware/authenticated-variables.js";
import { cacheDirectory, repository, type Environment } from "../../support/hosts/environment.js";
import { storeProbeImage } from "../../support/hosts/probe-image.js";
import type { Probe } from "../../support/hosts/probe.js";
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
  /** A file of other firmware variables. */
  variables?: string;
}

interface BuiltImage {
  folder: string;
  rootHash: string;
  /** The root with the tools that it was built by. */
  tools: string;
  sourceDateEpoch: number;
}

export class Boots {
  private readonly work: string;
  private built: Promise<BuiltImage> | undefined;

  constructor(private readonly environment: Environment) {
    this.work = mkdtempSync(path.join(environment.root, "boots-"));
  }

  /** The console of a machine that boots the altered image, until it is off or systemd runs. */
  async console(name: string, { variables, ...alteration }: Alteration): Promise<string> {
    const image = await this.image();
    const folder = path.join(this.work, name);
    mkdirSync(folder);
    const disk = path.join(folder, "disk.raw");
    await this.succeed("cp", ["--sparse=always", path.join(image.folder, "disk.raw"), disk]);
    copyFileSync(variables ?? path.join(image.folder, "OVMF_VARS.fd"), path.join(folder, "OVMF_VARS.fd"));
    if (alteration.keys !== undefined || alteration.policy !== undefined) await this.alter(folder, image, alteration);
    const console = await this.boot(folder);
    rmSync(disk);
    return console;
  }

  /** A file of the image's firmware variables, changed by virt-fw-vars while the machine is off. */
  async variables(name: string, change: string[], files: Record<string, string> = {}): Promise<string> {
    const { folder, tools } = await this.image();
    const work = path.join(this.work, `${name}-variables`);
    mkdirSync(work);
    for (const [file, content] of Object.entries(files)) writeFileSync(path.join(work, file), content);
    await this.succeed(path.join(definition, "scripts/in-root.sh"), [
      ...[tools, `${folder}:/image:ro`, `${work}:/work`, "--", "virt-fw-vars", "--loglevel", "warning"],
      ...["--input", "/image/OVMF_VARS.fd", "--output", "/work/OVMF_VARS.fd", ...change],
    ]);
    return path.join(work, "OVMF_VARS.fd");
  }

  private image(): Promise<BuiltImage> {
    this.built ??= this.describe();
    return this.built;
  }

  private async describe(): Promise<BuiltImage> {
    const { digest, rootHash } = await storeProbeImage(this.environment, "enforce");
    const folder = path.join(this.environment.state, "images", digest.replace("sha256:", ""));
    const { builtFrom } = JSON.parse(readFileSync(path.join(folder, "image.json"), "utf8")) as {
      builtFrom: { tools: string; sourceDateEpoch: number };
    };
    const tools = path.join(cacheDirectory(), "image", builtFrom.tools);
    return { folder, rootHash, tools, sourceDateEpoch: builtFrom.sourceDateEpoch };
  }

  private async alter(folder: string, image: BuiltImage, { keys, policy }: Alteration): Promise<void> {
    const alteredKeys = path.join(folder, "keys");
    cpSync(path.join(this.environment.home, "keys"), alteredKeys, { recursive: true });
    await keys?.(alteredKeys);
    const alteredDefinition = path.join(folder, "definition");
    cpSync(definition, alteredDefinition, { recursive: true });
    if (policy !== undefined) writeFileSync(path.join(alteredDefinition, "ipe-policy"), policy);
    const script = `
      export SOURCE_DATE_EPOCH=${image.sourceDateEpoch}
      disk=/work/disk.raw
      source /definition/scripts/esp.sh
      mcopy -i "$esp" ::/EFI/BOOT/BOOTX64.EFI /work/signed.efi
      /definition/scripts/boot-image.sh /definition /work/signed.efi ${image.rootHash} enforce /keys /work/altered.efi
      mcopy -o -i "$esp" /work/altered.efi ::/EFI/BOOT/BOOTX64.EFI`;
    await this.succeed(path.join(definition, "scripts/in-root.sh"), [
      ...[image.tools, `${alteredDefinition}:/definition:ro`, `${alteredKeys}:/keys:ro`, `${folder}:/work`],
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

/** The console of a stack's host since it was made. */
const serialLog = (environment: Environment) =>
  readFileSync(path.join(environment.folder("virtual-machines"), "serial.log"), "latin1");

/** The lines of the initrd's program, without the kernel's. */
const said = (console: string) =>
  console
    .split("\n")
    .filter((line) => line.includes("palisade-initrd:"))
    .map((line) => line.replace(/.*palisade-initrd: /, "").trim());

/** What the firmware and the kernel say of the boot, each read by the probe and not by the agent. */
export function bootFacts(host: AttackedHost, isolated: AttackedHost): void {
  describe("the boot", () => {
    it("B6: Secure Boot is on, and the firmware is not in setup mode", async () => {
      const started = Date.now();
      // The initrd reads the firmware's variables; no running host that enforces can.
      const [read] = said(serialLog(host.environment)).filter((line) => line.startsWith("firmware: "));
      // What the kernel's EFI stub read before: 3 stands for Secure Boot on and setup mode off.
      const ofKernel = async (probe: Probe) =>
        Number.parseInt(await probe.attack("byte", "/sys/kernel/boot_params/data", 0x1ec), 10);
      const stub = await ofKernel(host.probe());
      const facts = await host.environment.agent((client) => client.getIntegrity());
      // The host that gives up nothing still shows the variables.
      const variable = async (name: string) => {
        const content = await isolated
          .probe()
          .read(`/sys/firmware/efi/efivars/${name}-8be4df61-93ca-11d2-aa0d-00e098032b8c`);
        // Four bytes of attributes, then the value.
        return content.length === 5 ? content.charCodeAt(4) : -1;
      };
      const [secureBoot, setupMode] = [await variable("SecureBoot"), await variable("SetupMode")];
      const stubThere = await ofKernel(isolated.probe());
      prove(
        {
          id: "B6",
          observed: `initrd: ${read}; boot parameter of the kernel: ${stub}; the agent reports the same`,
          control:
            `on the host that still shows the variables: SecureBoot ${secureBoot}, SetupMode ${setupMode}, ` +
            `boot parameter ${stubThere}`,
          evidence: `console: ${read}; /sys/kernel/boot_params/data: secure_boot=${stub}`,
        },
        started,
        /SecureBoot 1, SetupMode 0/.test(read ?? "") &&
          stub === 3 &&
          facts.secureBoot &&
          !facts.setupMode &&
          secureBoot === 1 &&
          setupMode === 0 &&
          stubThere === 3,
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

/** A certificate of nobody's, PEM, below a folder. */
async function foreignCertificate(environment: Environment, stem: string): Promise<string> {
  const { exitCode, stderr } = await environment.run("openssl", [
    ...["req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "30", "-subj", "/CN=Somebody else"],
    ...["-keyout", `${stem}.key`, "-out", `${stem}.crt`],
  ]);
  expect(exitCode, stderr).toBe(0);
  return readFileSync(`${stem}.crt`, "utf8");
}

const shim = "605dab50-e046-4300-abb6-3dd810dd8b23";

export function initrdAttacks(host: AttackedHost, isolated: AttackedHost): void {
  const { environment } = host;
  /** How the host that was booted from the unaltered image, by the same firmware, came up. */
  const control = () => said(serialLog(environment));
  const started = (lines: string[]) => lines.some((line) => line.includes("starting systemd"));

  describe("the initrd", () => {
    it("I13: halts when the integrity policy is not the signed one, or none", async () => {
      const began = Date.now();
      const boots = new Boots(environment);
      const foreign = async (folder: string) =>
        void (await foreignCertificate(environment, path.join(folder, "image/ipe-policy")));
      const byForeigner = said(await boots.console("foreign", { keys: foreign }));
      const empty = said(await boots.console("empty", { policy: "" }));
      const halts = (lines: string[]) =>
        lines.some((line) => /^HALT: activate the integrity policy/.test(line)) && !started(lines);
      prove(
        {
          id: "I13",
          observed: `signed by a foreign key: ${byForeigner.at(-1)}; empty: ${empty.at(-1)}`,
          control: `unaltered: ${control().at(-1)}`,
          evidence: [...byForeigner, ...empty].join("\n"),
        },
        began,
        halts(byForeigner) && halts(empty) && started(control()),
      );
      report({
        table: "attack",
        id: "B8",
        observed: `the integrity policy cannot be activated: ${byForeigner.at(-1)}`,
        control: `unaltered: ${control().at(-1)}`,
        evidence: byForeigner.join("\n"),
        pass: true,
        seconds: (Date.now() - began) / 1000,
        missing: "failures of the initrd's other steps",
      });
    });

    it("B7, B10: halts when the firmware's lists are not those of the boot image, planted by root or on a disk that is off", async () => {
      const began = Date.now();
      const boots = new Boots(environment);
      const stem = path.join(mkdtempSync(path.join(environment.root, "foreign-")), "foreign");
      const certificate = await foreignCertificate(environment, stem);
      const list = signatureList(new X509Certificate(certificate).raw).toString("hex");
      const variable = `MokListRT-${shim}`;
      // Non-volatile, for boot and run time.
      const plant = (probe: Probe) => probe.attack("plant", variable, `07000000${list}`);
      const refused = await plant(host.probe());
      const planted = await plant(isolated.probe());
      // What the firmware of that host would have at its next boot.
      const byRoot = path.join(path.dirname(stem), "OVMF_VARS.fd");
      copyFileSync(path.join(isolated.environment.folder("virtual-machines"), "OVMF_VARS.fd"), byRoot);
      const removed = await isolated.probe().attack("unplant", variable);
      const trusted = { name: "MokListTrustedRT", guid: shim, attr: 7, data: "01" };
      const json = JSON.stringify({ version: 2, variables: [trusted] });
      const inShim = await boots.variables("shim", ["--set-json", "/work/planted.json"], { "planted.json": json });
      const owner = "00000000-0000-0000-0000-000000000000";
      const inDb = await boots.variables("db", ["--add-db", owner, "/work/c.crt"], { "c.crt": certificate });
      // At the same time, as they are short and wait for the same firmware.
      const [root, offline, db] = await Promise.all(
        Object.entries({ root: byRoot, offline: inShim, db: inDb }).map(async ([name, variables]) =>
          said(await boots.console(name, { variables })),
        ),
      );
      const halts = (lines: string[], why: RegExp) =>
        lines.some((line) => line.startsWith("HALT: check the firmware: ") && why.test(line)) && !started(lines);
      prove(
        {
          id: "B7",
          observed: `root cannot: ${refused}; booted with what root planted where it could: ${root!.at(-1)}`,
          control: `nothing given up by the initrd: root plants it: ${planted}; without it: ${control().at(-1)}`,
          evidence: root!.join("\n"),
        },
        began,
        refused === "ENODEV" &&
          planted === "done" &&
          removed === "done" &&
          halts(root!, /MokListRT/) &&
          started(control()),
      );
      prove(
        {
          id: "B10",
          observed: `MokListTrustedRT: ${offline!.at(-1)}; db: ${db!.at(-1)}`,
          control: `without them: ${control().at(-1)}`,
          evidence: [...offline!, ...db!].join("\n"),
        },
        began,
        halts(offline!, /MokListTrustedRT/) && halts(db!, /db: holds certificate/) && started(control()),
      );
    });
  });
}
