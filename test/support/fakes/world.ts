/**
 * A machine that exists only as files in a folder: what the fault-injecting backends make there survives the plugin's
 * death, so a test can count what a killed `up` left behind, change it behind the provider's back, and choose what
 * fails.
 */
import { randomBytes } from "node:crypto";
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import type { Owner } from "../../../provider/backends/index.js";
import { namesIn } from "../directory.js";

export type Kind =
  | "state-disks"
  | "virtual-machines"
  | "registries"
  | "images"
  | "patches"
  | "seals"
  | "channels"
  | "host-images"
  | "groups"
  | "image-policies"
  | "network-policies";

export interface Thing<T> {
  id: string;
  owner: Owner;
  /** False until the call that makes it has ended. */
  finished: boolean;
  spec: T;
  /** What an observer sees, where it differs from the spec. */
  observed: Record<string, unknown>;
}

/**
 * What happens when an operation reaches a checkpoint. `fail` throws; `hang` waits for cancellation; the others send a
 * signal to the plugin or to its parent, the CLI, and then hang. Each fault happens once.
 */
export interface Fault {
  checkpoint: string;
  action: "fail" | "hang" | "interrupt-plugin" | "kill-plugin" | "interrupt-cli" | "kill-cli";
  message?: string;
}

/** The CLI, when this process is a plugin. */
const parent = process.ppid;

/** Replaces it atomically: plugin and tests read while the other writes. */
function replaceFile(file: string, content: string): void {
  writeFileSync(`${file}.new`, content, { mode: 0o600 });
  renameSync(`${file}.new`, file);
}

export class World {
  constructor(readonly directory: string) {
    mkdirSync(directory, { recursive: true });
  }

  newId(prefix: string): string {
    return `${prefix}-${randomBytes(6).toString("hex")}`;
  }

  list<T>(kind: Kind): Thing<T>[] {
    const folder = path.join(this.directory, kind);
    return namesIn(folder)
      .filter((name) => name.endsWith(".json"))
      .map((name) => JSON.parse(readFileSync(path.join(folder, name), "utf8")) as Thing<T>);
  }

  get<T>(kind: Kind, id: string): Thing<T> | undefined {
    return this.list<T>(kind).find((thing) => thing.id === id);
  }

  ownedBy<T>(kind: Kind, owner: Owner): Thing<T> | undefined {
    return this.list<T>(kind).find(
      (thing) =>
        thing.owner.urn === owner.urn && thing.owner.stack === owner.stack && thing.owner.backend === owner.backend,
    );
  }

  put<T>(kind: Kind, thing: Thing<T>): void {
    const folder = path.join(this.directory, kind);
    mkdirSync(folder, { recursive: true });
    const file = path.join(folder, `${thing.id.replaceAll("/", "_")}.json`);
    replaceFile(file, JSON.stringify(thing, undefined, 1));
  }

  remove(kind: Kind, id: string): void {
    rmSync(path.join(this.directory, kind, `${id.replaceAll("/", "_")}.json`), { force: true });
  }

  /** Changes what is observed of every thing of a kind, behind the provider's back. */
  disturb(kind: Kind, observed: Record<string, unknown>): void {
    for (const thing of this.list(kind)) this.put(kind, { ...thing, observed: { ...thing.observed, ...observed } });
  }

  /** Another party rolls the group to a digest just before it is declared the next time. */
  scheduleRoll(digest: string): void {
    writeFileSync(path.join(this.directory, "roll"), digest);
  }

  /** The digest of a roll that is due; it is returned once. */
  takeRoll(): string | undefined {
    const file = path.join(this.directory, "roll");
    if (!existsSync(file)) return undefined;
    const digest = readFileSync(file, "utf8");
    rmSync(file);
    return digest;
  }

  private get faultsFile(): string {
    return path.join(this.directory, "faults.json");
  }

  private faults(): Fault[] {
    return existsSync(this.faultsFile) ? (JSON.parse(readFileSync(this.faultsFile, "utf8")) as Fault[]) : [];
  }

  /** Replaces the faults that are to happen. */
  setFaults(...faults: Fault[]): void {
    replaceFile(this.faultsFile, JSON.stringify(faults));
  }

  /** True when every fault has happened. */
  get faultsStruck(): boolean {
    return this.faults().length === 0;
  }

  /** Called by the backends at each named point of an operation. */
  async reach(checkpoint: string, signal: AbortSignal): Promise<void> {
    const faults = this.faults();
    const fault = faults.find((candidate) => candidate.checkpoint === checkpoint);
    if (!fault) return;
    // The plugin of a killed CLI goes on for a moment; the fault is meant for the one of the next `up`.
    if (process.ppid !== parent) return;
    this.setFaults(...faults.filter((candidate) => candidate !== fault));
    switch (fault.action) {
      case "fail":
        throw new Error(fault.message ?? `injected failure at ${checkpoint}`);
      case "interrupt-plugin":
        process.kill(process.pid, "SIGINT");
        break;
      case "kill-plugin":
        process.kill(process.pid, "SIGKILL");
        break;
      case "interrupt-cli":
        process.kill(process.ppid, "SIGINT");
        break;
      case "kill-cli":
        process.kill(process.ppid, "SIGKILL");
        break;
      case "hang":
        break;
    }
    await new Promise<never>((_resolve, reject) => {
      const abort = () => reject(Object.assign(new Error("the operation was cancelled"), { name: "AbortError" }));
      if (signal.aborted) abort();
      else signal.addEventListener("abort", abort, { once: true });
    });
  }
}
