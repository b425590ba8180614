/** Ownership markers: what exists on this machine and who owns it, written to the disk before anything is started. */
import { createHash } from "node:crypto";
import { mkdir, rename, rm } from "node:fs/promises";
import { join } from "node:path";
import * as v from "valibot";
import { decode, object } from "../../shared/decode.js";
import type { Owner } from "../backends/index.js";
import { isAbsent, readDirectoryIfPresent, readFileIfPresent, syncDirectory, writeFileAtomic } from "./atomic-file.js";
import { acquireLock } from "./lock.js";
import { machineId } from "./machine.js";
import type { NamedProcess } from "./process.js";

const schemaVersion = 1;

/** Content of `marker.json` in the folder of a thing. `Details` are the fields that its kind adds. */
export interface Marker<Spec, Details> {
  schemaVersion: number;
  id: string;
  owner: Owner;
  /** Of the machine that runs the thing. */
  machineId: string;
  /** ISO 8601. */
  createdAt: string;
  /** The specification of the last create or update. */
  spec: Spec;
  processes: NamedProcess[];
  details: Details;
}

const markerSchema = object({
  id: v.string(),
  owner: object({ backend: v.string(), project: v.string(), stack: v.string(), urn: v.string() }),
  machineId: v.string(),
  processes: v.array(object({ name: v.string(), pid: v.number(), startTime: v.string(), bootId: v.string() })),
});

/** Id of the one thing that an owner can have of a kind: the same owner always gets the same id. */
export function idFor(prefix: string, owner: Owner): string {
  const text = [owner.backend, owner.project, owner.stack, owner.urn].join("\0");
  return `${prefix}-${createHash("sha256").update(text).digest("hex").slice(0, 12)}`;
}

/** The process of a marker with this name. */
export function processOf(marker: { processes: NamedProcess[] }, name: string): NamedProcess | undefined {
  return marker.processes.find((candidate) => candidate.name === name);
}

/** All things of one kind: a folder each, `<directory>/<id>/`, with its marker. */
export class MarkerStore<Spec, Details> {
  constructor(
    readonly directory: string,
    readonly prefix: string,
  ) {}

  /** Folder of a thing. */
  folder(id: string): string {
    if (!new RegExp(`^${this.prefix}-[0-9a-f]{12}$`).test(id)) {
      throw new Error(`id: ${JSON.stringify(id)} is no id of this kind; it looks like ${this.prefix}-0123456789ab`);
    }
    return join(this.directory, id);
  }

  /** Marker of a thing; undefined when there is no such thing. */
  async read(id: string): Promise<Marker<Spec, Details> | undefined> {
    const path = join(this.folder(id), "marker.json");
    const content = await readFileIfPresent(path);
    if (content === undefined) return undefined;
    const version = decode(object({ schemaVersion: v.number() }), content, path).schemaVersion;
    if (version !== schemaVersion) {
      throw new Error(
        `${path}: schema version ${version} is not known, only ${schemaVersion}; use the version of Palisade that wrote it`,
      );
    }
    const marker = decode(markerSchema, content, path) as unknown as Marker<Spec, Details>;
    if (marker.machineId !== (await machineId())) {
      throw new Error(`${path}: belongs to the machine ${marker.machineId}, not to this one; run Palisade there`);
    }
    return marker;
  }

  /** As `read`, but absence is an error. */
  async existing(id: string): Promise<Marker<Spec, Details>> {
    const marker = await this.read(id);
    if (!marker) throw new Error(`${id}: there is no such thing in ${this.directory}; refresh the stack`);
    return marker;
  }

  /** Returns the thing that the owner has already, or marks a new one as the owner's. The caller holds the lock. */
  async adoptOrCreate(owner: Owner, spec: Spec, details: Details): Promise<Marker<Spec, Details>> {
    const id = idFor(this.prefix, owner);
    const present = await this.read(id);
    if (present) return present;
    const marker: Marker<Spec, Details> = {
      schemaVersion,
      id,
      owner,
      machineId: await machineId(),
      createdAt: new Date().toISOString(),
      spec,
      processes: [],
      details,
    };
    await mkdir(this.folder(id), { recursive: true, mode: 0o700 });
    await syncDirectory(this.directory);
    await this.write(marker);
    return marker;
  }

  async write(marker: Marker<Spec, Details>): Promise<void> {
    await writeFileAtomic(join(this.folder(marker.id), "marker.json"), `${JSON.stringify(marker, undefined, 2)}\n`);
  }

  /** Every marked thing, in the order of ids. */
  async list(): Promise<Marker<Spec, Details>[]> {
    const names = await readDirectoryIfPresent(this.directory);
    const ids = names.filter((name) => new RegExp(`^${this.prefix}-[0-9a-f]{12}$`).test(name)).sort();
    const markers = await Promise.all(ids.map((id) => this.read(id)));
    return markers.filter((marker) => marker !== undefined);
  }

  /** Removes a thing's folder. It is renamed first, so that a killed removal leaves no partly removed thing. */
  async remove(id: string): Promise<void> {
    const doomed = join(this.directory, `.removed-${id}`);
    await rm(doomed, { recursive: true, force: true });
    try {
      await rename(this.folder(id), doomed);
    } catch (error) {
      if (!isAbsent(error)) throw error;
      return;
    }
    await syncDirectory(this.directory);
    await rm(doomed, { recursive: true, force: true });
  }

  /** Excludes every other operation on the same thing while `work` runs. */
  async locked<T>(id: string, signal: AbortSignal | undefined, work: () => Promise<T>): Promise<T> {
    this.folder(id);
    const release = await acquireLock(join(this.directory, ".locks", id), signal);
    try {
      return await work();
    } finally {
      await release();
    }
  }
}
