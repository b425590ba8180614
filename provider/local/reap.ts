/** Removes from this machine what an owner has on it, as the ownership markers say. */
import { join } from "node:path";
import { listClaims } from "./host-images/store.js";
import { noCheckpoint, type Backends, type Operation, type Owner } from "../backends/index.js";
import { MarkerStore } from "../system/marker.js";

/** Whose things: all of a state backend, or those of one project and stack in it. */
export interface Ownership {
  backend: string;
  project?: string;
  stack?: string;
}

interface OwnedKind {
  title: string;
  find(stateDirectory: string): Promise<{ id: string; owner: Owner }[]>;
  remove(backends: Backends, operation: Operation, id: string): Promise<void>;
}

/** Something on this machine with its owner. */
export interface OwnedThing {
  kind: OwnedKind;
  /** As the engine knows it. */
  id: string;
  owner: Owner;
}

const marked = (folder: string, prefix: string) => (stateDirectory: string) =>
  new MarkerStore<unknown, unknown>(join(stateDirectory, folder), prefix).list();

/** In the order in which they can go: a disk cannot while a machine uses it, nor an image. */
const kinds: OwnedKind[] = [
  {
    title: "virtual machine",
    find: marked("virtual-machines", "vm"),
    // By force: the host is not asked, as it may hang.
    remove: (backends, operation, id) => backends.hypervisor("local").deleteVirtualMachine(operation, id, true),
  },
  {
    title: "state disk",
    find: marked("state-disks", "disk"),
    remove: (backends, operation, id) => backends.hypervisor("local").deleteStateDisk(operation, id),
  },
  {
    title: "patch",
    find: marked("patches", "patch"),
    remove: (backends, operation, id) => backends.patcher.endPatch(operation, id),
  },
  {
    title: "registry",
    find: marked("registries", "registry"),
    remove: (backends, operation, id) => backends.registries.deleteRegistry(operation, id),
  },
  {
    title: "claim on the host image",
    find: async (stateDirectory) =>
      (await listClaims(stateDirectory)).map(({ digest, owner }) => ({ id: digest, owner })),
    remove: (backends, operation, digest) => backends.hostImages.release(operation, digest),
  },
];

/**
 * What belongs to an owner, in the order in which it can be removed. What a killed call left half made is part of it.
 */
export async function ownedThings(stateDirectory: string, whose: Ownership): Promise<OwnedThing[]> {
  const things: OwnedThing[] = [];
  for (const kind of kinds) {
    for (const { id, owner } of await kind.find(stateDirectory)) {
      const isTheirs =
        owner.backend === whose.backend &&
        (whose.project === undefined || owner.project === whose.project) &&
        (whose.stack === undefined || owner.stack === whose.stack);
      if (isTheirs) things.push({ kind, id, owner });
    }
  }
  return things;
}

/** How long the removal of one thing may take. */
const removalMilliseconds = 5 * 60_000;

/**
 * Removes things one after the other, each as its owner.
 *
 * @param say gets a line for each of them, and what the backends log
 */
export async function removeThings(
  things: OwnedThing[],
  backends: Backends,
  say: (line: string) => void,
): Promise<void> {
  for (const { kind, id, owner } of things) {
    say(`removing the ${kind.title} ${id}, which an interrupted run left (${owner.urn})`);
    const operation: Operation = {
      owner,
      signal: AbortSignal.timeout(removalMilliseconds),
      deadline: Date.now() + removalMilliseconds,
      log: (_severity, message) => say(message),
      status: () => undefined,
      checkpoint: noCheckpoint,
    };
    await kind.remove(backends, operation, id);
  }
}
