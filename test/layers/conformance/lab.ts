/**
 * A lab of network namespaces with the real datapath between them: bpf/cmd/datapath-lab. It needs root, in a guest QEMU
 * as well.
 */
import { execFileSync, spawn, spawnSync, type ChildProcess } from "node:child_process";
import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface, type Interface } from "node:readline";
import type { CompiledPolicy } from "../../../components/policy/index.js";
import { packageRoot } from "../../../shared/directories.js";

export interface LabEndpoint {
  /** As the compiled form has it: `namespace/name`. */
  name: string;
  ipv4: string;
  ipv6: string;
}

export interface LabProbe {
  from: string;
  to: string;
  family: 4 | 6;
  protocol: "TCP" | "UDP" | "SCTP";
  port: number;
}

export interface LabResult {
  allowed: boolean;
  /** Why the datapath dropped it, or `timeout`. */
  reason?: string;
}

export interface LabOptions {
  /**
   * In the virtual machine of test/support/guest, whose kernel has what this machine's may lack. Default: on this
   * machine.
   */
  guest?: boolean;
  /** What connects endpoints to the host. Default: `veth`. */
  links?: "veth" | "netkit";
}

const repository = packageRoot();
/** Runs a static program in the guest. */
export const guestRun = path.join(repository, "test/support/guest/run.sh");
const source = path.join(repository, "bpf/cmd/datapath-lab");

/** Why no guest can be started here; undefined when one can. */
export function guestIsMissing(): string | undefined {
  if (process.getuid?.() !== 0) return "making the guest needs root";
  if (spawnSync("qemu-system-x86_64", ["--version"]).status !== 0) return "qemu-system-x86_64 is not installed";
  return undefined;
}

/** Why there can be no lab here; undefined when there can. PALISADE_DATAPATH_LAB names a program built elsewhere. */
export function labIsMissing({ guest = false }: LabOptions = {}): string | undefined {
  const missing = guest ? guestIsMissing() : undefined;
  if (missing !== undefined) return missing;
  if (process.getuid?.() !== 0) return "network namespaces need root";
  if (process.env.PALISADE_DATAPATH_LAB === undefined && !existsSync(source)) return "this clone has no datapath";
  return undefined;
}

function program(): string {
  if (process.env.PALISADE_DATAPATH_LAB !== undefined) return process.env.PALISADE_DATAPATH_LAB;
  const target = path.join(repository, "build/test/datapath-lab");
  mkdirSync(path.dirname(target), { recursive: true });
  const env = { ...process.env, CGO_ENABLED: "0" };
  execFileSync("go", ["build", "-o", target, "./bpf/cmd/datapath-lab"], { cwd: repository, env });
  return target;
}

/** Milliseconds for a lab to start; making the guest's kernel and modules for the first time takes minutes. */
const startLimit = 10 * 60_000;
/** Milliseconds for one to end, before it is killed. */
const endLimit = 60_000;

export class Lab {
  private constructor(
    private readonly child: ChildProcess,
    private readonly folder: string,
    private readonly lines: AsyncIterator<string>,
    private readonly reader: Interface,
  ) {}

  static async start(endpoints: LabEndpoint[], { guest = false, links = "veth" }: LabOptions = {}): Promise<Lab> {
    const folder = mkdtempSync(path.join(tmpdir(), "palisade-lab-"));
    const description = path.join(folder, "lab.json");
    // An emulated machine may stand still for more than the second that is the default. What is dropped is seen, not
    // waited for.
    const timeoutSeconds = guest ? 20 : undefined;
    writeFileSync(description, JSON.stringify({ endpoints, links, timeoutSeconds }));
    const command = guest
      ? [guestRun, program(), `${description}=/lab.json`, "--", "/lab.json"]
      : [program(), description];
    const child = spawn(command[0] as string, command.slice(1), { stdio: ["pipe", "pipe", "inherit"] });
    const reader = createInterface({ input: child.stdout as NodeJS.ReadableStream });
    const lab = new Lab(child, folder, reader[Symbol.asyncIterator](), reader);
    const timer = setTimeout(() => child.kill(), startLimit);
    await lab.answer().finally(() => clearTimeout(timer));
    return lab;
  }

  /** Replaces the policy; fails when the kernel's is not the one that was given. */
  async apply(policy: CompiledPolicy): Promise<void> {
    const { applied } = await this.ask<{ applied: string }>({ policy });
    if (applied !== policy.hash) throw new Error(`the datapath has policy ${applied} instead of ${policy.hash}`);
  }

  async probe(probes: LabProbe[]): Promise<LabResult[]> {
    return (await this.ask<{ results: LabResult[] }>({ probes })).results;
  }

  async close(): Promise<void> {
    const ended = new Promise((resolve) => this.child.once("close", resolve));
    this.child.stdin?.end();
    const timer = setTimeout(() => this.child.kill(), endLimit);
    await ended;
    clearTimeout(timer);
    this.reader.close();
    rmSync(this.folder, { recursive: true });
  }

  private async ask<T>(request: object): Promise<T> {
    this.child.stdin?.write(`${JSON.stringify(request)}\n`);
    return (await this.answer()) as T;
  }

  private async answer(): Promise<object> {
    const { value, done } = await this.lines.next();
    if (done) throw new Error("the lab has ended; see its output above");
    const answer = JSON.parse(value) as { error?: string };
    if (answer.error !== undefined) throw new Error(`lab: ${answer.error}`);
    return answer;
  }
}
