/**
 * A machine of its own: QEMU with firmware in setup mode, two disks and a rescue system that is started over the
 * network.
 */
import { execFileSync, spawn, type ChildProcess } from "node:child_process";
import { copyFileSync, mkdirSync, openSync, readFileSync, writeFileSync } from "node:fs";
import path from "node:path";
import { utils } from "ssh2";
import { machineArguments } from "../../../provider/local/hypervisor/qemu/accelerator.js";
import { freePort } from "../../../provider/system/testing.js";
import { packageRoot } from "../../../shared/directories.js";

export const repository = packageRoot();

export class Machine {
  readonly privateKey: string;
  readonly hostKey: string;
  readonly console: string;
  private process: ChildProcess | undefined;

  private constructor(
    readonly folder: string,
    readonly sshPort: number,
    readonly agentPort: number,
  ) {
    const [host, user] = [utils.generateKeyPairSync("ed25519"), utils.generateKeyPairSync("ed25519")];
    this.privateKey = user.private;
    this.hostKey = host.public;
    this.console = path.join(folder, "console.log");
    const test = path.join(folder, "initrd/test");
    mkdirSync(test, { recursive: true });
    const write = (name: string, text: string) => writeFileSync(path.join(test, name), text, { mode: 0o600 });
    write("host_key", host.private);
    write("authorized_keys", `${user.public}\n`);
    write(
      "sshd_config",
      [
        "HostKey /run/test/host_key",
        "AuthorizedKeysFile /run/test/authorized_keys",
        "UsePAM no",
        "PermitRootLogin prohibit-password",
        "PerSourcePenalties no",
        "Subsystem sftp internal-sftp",
        "",
      ].join("\n"),
    );
    copyFileSync("/usr/share/OVMF/OVMF_VARS_4M.fd", path.join(folder, "OVMF_VARS.fd"));
    for (const disk of ["target", "other"]) execFileSync("truncate", ["--size=10G", path.join(folder, `${disk}.raw`)]);
    // Somebody's data: an MBR with one partition.
    const data = Buffer.alloc(512);
    Buffer.from([0x80, 0, 2, 0, 0x83, 0xff, 0xff, 0xff, 0, 8, 0, 0, 0, 0, 0x10, 0]).copy(data, 446);
    data.writeUInt16LE(0xaa55, 510);
    writeFileSync(path.join(folder, "other.raw"), data, { flag: "r+" });
  }

  static async make(folder: string): Promise<Machine> {
    mkdirSync(folder, { recursive: true });
    return new Machine(folder, await freePort(), await freePort());
  }

  /** What is at the beginning of a disk. */
  beginning(disk: "target" | "other"): Buffer {
    return execFileSync("head", ["-c", "16777216", path.join(this.folder, `${disk}.raw`)], { maxBuffer: 1 << 25 });
  }

  /** Whether the machine is on. */
  get isOn(): boolean {
    return this.process !== undefined && this.process.exitCode === null && this.process.signalCode === null;
  }

  /**
   * Switches the machine on, into the rescue system once, then into what is installed: as a provider's rescue mode does
   * it. A reboot ends QEMU, which is started anew.
   */
  startRescue(): void {
    const boot = execFileSync(path.join(repository, "test/support/rescue/initrd.sh"), { encoding: "utf8" }).trim();
    const initrd = path.join(this.folder, "initrd.gz");
    // The keys of this test come behind the rescue system in one archive.
    const packed = execFileSync(
      path.join(repository, "test/support/rescue/pack.sh"),
      [path.join(this.folder, "initrd")],
      {
        maxBuffer: 1 << 24,
      },
    );
    writeFileSync(initrd, Buffer.concat([readFileSync(path.join(boot, "initrd")), packed]));
    this.start([
      "-no-reboot",
      "-kernel",
      path.join(boot, "vmlinuz"),
      "-initrd",
      initrd,
      "-append",
      "console=ttyS0 quiet panic=5",
    ]);
    const rescue = this.process!;
    rescue.once("exit", () => {
      if (this.process === rescue) this.start([]);
    });
  }

  private start(extra: string[]): void {
    const log = openSync(path.join(this.folder, "qemu.log"), "a");
    const disk = (name: string) => [
      ...["-drive", `if=none,id=${name},format=raw,discard=unmap,file=${name}.raw`],
      ...["-device", `virtio-blk-pci,drive=${name},serial=${name}-disk${name === "target" ? ",bootindex=1" : ""}`],
    ];
    this.process = spawn(
      "qemu-system-x86_64",
      [
        ...["-name", "palisade-metal", ...machineArguments("tcg")],
        ...["-smp", "2", "-m", "2048", "-rtc", "base=utc"],
        ...["-global", "driver=cfi.pflash01,property=secure,value=on", "-global", "ICH9-LPC.disable_s3=1"],
        ...["-drive", "if=pflash,unit=0,format=raw,readonly=on,file=/usr/share/OVMF/OVMF_CODE_4M.secboot.fd"],
        ...["-drive", "if=pflash,unit=1,format=raw,file=OVMF_VARS.fd"],
        ...[...disk("target"), ...disk("other")],
        ...[
          "-netdev",
          `user,id=network,hostfwd=tcp:127.0.0.1:${this.sshPort}-:22,hostfwd=tcp:127.0.0.1:${this.agentPort}-:8443`,
        ],
        ...["-device", "virtio-net-pci,netdev=network,romfile=", "-device", "virtio-rng-pci"],
        ...["-chardev", "file,id=console,path=console.log,append=on", "-serial", "chardev:console"],
        ...extra,
      ],
      { cwd: this.folder, stdio: ["ignore", log, log] },
    );
  }

  async stop(): Promise<void> {
    const machine = this.process;
    this.process = undefined;
    if (!machine || machine.exitCode !== null || machine.signalCode !== null) return;
    const gone = new Promise((resolve) => machine.once("exit", resolve));
    machine.kill("SIGTERM");
    await gone;
  }

  consoleText(): string {
    return readFileSync(this.console, "utf8");
  }
}
