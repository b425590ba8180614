/**
 * Whether KVM works here. The existence of /dev/kvm is no proof: paravirtual kernels expose it and then hang or refuse
 * stock guests. So a tiny guest is booted with the same machine and CPU options as the real one.
 */
import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { spawn } from "node:child_process";
import * as v from "valibot";
import { decode, object } from "../../../../shared/decode.js";
import { readFileIfPresent, writeFileAtomic } from "../../../system/atomic-file.js";
import { withLock } from "../../../system/lock.js";
import { bootId } from "../../../../shared/process-identity.js";
import { probeDisk, probeText } from "./probe-guest.js";

export type Accelerator = "kvm" | "tcg";

/** QEMU's machine and CPU, the same for the probe and for hosts. */
export function machineArguments(accelerator: Accelerator): string[] {
  return [
    ...["-no-user-config", "-nodefaults", "-display", "none"],
    ...["-machine", "q35,smm=on,vmport=off"],
    // One thread for all virtual processors: with several, a guest's kernel that patches its own code (static keys) was
    // seen to run into its own break points, and died of them.
    ...["-accel", accelerator === "kvm" ? "kvm" : "tcg,thread=single,tb-size=512"],
    ...["-cpu", "max"],
  ];
}

export interface ProbeResult {
  works: boolean;
  /** Why not; empty when it works. */
  reason: string;
}

const cacheSchema = object({ bootId: v.string(), works: v.boolean(), reason: v.string() });

/** Boots the probe guest, which has to print its text within `milliseconds` (default 5 s). */
export async function probe(accelerator: Accelerator, signal?: AbortSignal, milliseconds = 5000): Promise<ProbeResult> {
  const folder = await mkdtemp(join(tmpdir(), "palisade-probe-"));
  try {
    const disk = join(folder, "probe.img");
    await writeFile(disk, probeDisk());
    return await boot(accelerator, disk, signal, milliseconds);
  } finally {
    await rm(folder, { recursive: true, force: true });
  }
}

function boot(
  accelerator: Accelerator,
  disk: string,
  signal: AbortSignal | undefined,
  milliseconds: number,
): Promise<ProbeResult> {
  const args = [
    ...machineArguments(accelerator),
    ...["-m", "64", "-serial", "stdio"],
    ...["-blockdev", `driver=raw,node-name=probe,read-only=on,file.driver=file,file.filename=${disk}`],
    ...["-device", "virtio-blk-pci,drive=probe"],
  ];
  return new Promise((resolve, reject) => {
    const child = spawn("qemu-system-x86_64", args, { stdio: ["ignore", "pipe", "pipe"] });
    let console = "";
    let complaint = "";
    let result: ProbeResult = { works: false, reason: "" };
    const end = () => child.kill("SIGKILL");
    const timer = setTimeout(() => {
      result = { works: false, reason: `the probe guest printed nothing within ${milliseconds / 1000} s` };
      end();
    }, milliseconds);
    signal?.addEventListener("abort", end, { once: true });
    child.stderr.on("data", (data: Buffer) => (complaint += data.toString()));
    child.stdout.on("data", (data: Buffer) => {
      if (result.works) return;
      console += data.toString();
      if (console.includes(probeText)) {
        result = { works: true, reason: "" };
        end();
      }
    });
    const settle = () => {
      clearTimeout(timer);
      signal?.removeEventListener("abort", end);
    };
    child.once("error", (error) => {
      settle();
      reject(new Error(`qemu-system-x86_64 cannot be run: ${error.message}; install qemu-system-x86`));
    });
    child.once("close", () => {
      settle();
      if (signal?.aborted) return reject(signal.reason as Error);
      const words = complaint.trim().split("\n").at(-1) || "QEMU ended without a word";
      resolve(result.works || result.reason ? result : { works: false, reason: words });
    });
  });
}

/** Answers of the probe, kept for one boot of this machine. */
export class AcceleratorChoice {
  constructor(private readonly cacheFile: string) {}

  /**
   * The accelerator to use; with `reason` when it is not KVM although TCG was not requested.
   *
   * @throws when KVM was requested and does not work.
   */
  async choose(
    requested: "auto" | Accelerator,
    signal?: AbortSignal,
  ): Promise<{ accelerator: Accelerator; reason?: string }> {
    if (requested === "tcg") return { accelerator: "tcg" };
    const kvm = await this.kvm(signal);
    if (kvm.works) return { accelerator: "kvm" };
    if (requested === "kvm") {
      throw new Error(
        `acceleration: "kvm" does not work on this machine: ${kvm.reason}; use "auto" or "tcg", which emulates and is slower`,
      );
    }
    const reason = `KVM does not work here (${kvm.reason}); the machine is emulated by TCG, which is slower`;
    return { accelerator: "tcg", reason };
  }

  private async kvm(signal?: AbortSignal): Promise<ProbeResult> {
    return withLock(`${this.cacheFile}.lock`, signal, async () => {
      const boot = await bootId();
      const cached = await readFileIfPresent(this.cacheFile);
      if (cached !== undefined) {
        try {
          const kept = decode(cacheSchema, cached, this.cacheFile);
          if (kept.bootId === boot) return kept;
        } catch {
          // An unreadable answer is replaced by a new one.
        }
      }
      const result = await probe("kvm", signal);
      await writeFileAtomic(this.cacheFile, JSON.stringify({ bootId: boot, ...result }), 0o644);
      return result;
    });
  }
}
