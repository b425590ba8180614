/** Removes from this machine what belongs to a state backend that is given up, as the ownership markers tell. */
import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import * as v from "valibot";
import { decode, object } from "../../shared/decode.js";
import { createLocalBackends } from "./index.js";
import type { Operation, Owner } from "../backends/index.js";
import { isAbsent } from "../system/atomic-file.js";
import { MarkerStore, type Marker } from "../system/marker.js";

/**
 * Machines first, by force, as nobody is left who could ask for more; then registries, disks and claims on host images. What a
 * killed call left half made, and no stack knows of, has a marker too.
 *
 * @returns ids of what was removed.
 */
export async function removeOwnedBy(
  backend: string,
  directories: { stateDirectory: string; cacheDirectory: string },
  operation: Omit<Operation, "owner">,
): Promise<string[]> {
  const { stateDirectory } = directories;
  const backends = createLocalBackends(directories);
  const hypervisor = backends.hypervisor("local");
  const removed: string[] = [];
  const of = async (folder: string, prefix: string, remove: (op: Operation, id: string) => Promise<void>) => {
    const store = new MarkerStore<unknown, unknown>(join(stateDirectory, folder), prefix);
    const owned = (await store.list()).filter((marker: Marker<unknown, unknown>) => marker.owner.backend === backend);
    for (const { id, owner } of owned) {
      await remove({ ...operation, owner }, id);
      removed.push(id);
    }
  };
  await of("virtual-machines", "vm", (op, id) => hypervisor.deleteVirtualMachine(op, id, true));
  await of("patches", "patch", (op, id) => backends.patcher.endPatch(op, id));
  await of("registries", "registry", (op, id) => backends.registries.deleteRegistry(op, id));
  await of("state-disks", "disk", (op, id) => hypervisor.deleteStateDisk(op, id));
  for (const { owner, digest } of await claimsOf(backend, join(stateDirectory, "images"))) {
    await backends.hostImages.release({ ...operation, owner }, digest);
  }
  return removed;
}

const ownerSchema = object({
  backend: v.string(),
  project: v.string(),
  stack: v.string(),
  urn: v.string(),
}) satisfies v.GenericSchema<unknown, Owner>;

async function claimsOf(backend: string, store: string): Promise<{ owner: Owner; digest: string }[]> {
  const names = await readdir(store, { recursive: true }).catch((error: unknown) => {
    if (isAbsent(error)) return [];
    throw error;
  });
  const claims: { owner: Owner; digest: string }[] = [];
  for (const name of names) {
    const hex = /^([0-9a-f]{64})\.claims\/claim-/.exec(name)?.[1];
    if (hex === undefined) continue;
    const owner = decode(ownerSchema, await readFile(join(store, name), "utf8"), join(store, name));
    if (owner.backend === backend) claims.push({ owner, digest: `sha256:${hex}` });
  }
  return claims;
}
