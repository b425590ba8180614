// Removes what a stack owns on this machine although its state does not know it: an `up` that was killed between making
// a thing and writing its state leaves one. Ownership is what the thing's marker says; things of other backends,
// projects and stacks are not touched, nor those that the state knows (`pulumi stack export` on standard input, or
// nothing where there is no state). Usage: leftovers.mjs STATE-FOLDER BACKEND-URL PROJECT STACK
import { readdirSync, readFileSync } from "node:fs";
import { createRequire } from "node:module";
import path from "node:path";
import { pathToFileURL } from "node:url";

/** Milliseconds that the removal of one thing may take. */
const patience = 5 * 60_000;

/** In the order in which they can be removed: a disk cannot be removed while a machine uses it. */
const kinds = [
  {
    folder: "virtual-machines",
    title: "virtual machine",
    remove: (backends, operation, id) => backends.hypervisor("local").deleteVirtualMachine(operation, id, true),
  },
  {
    folder: "state-disks",
    title: "state disk",
    remove: (backends, operation, id) => backends.hypervisor("local").deleteStateDisk(operation, id),
  },
  {
    folder: "patches",
    title: "patch",
    remove: (backends, operation, id) => backends.patcher.endPatch(operation, id),
  },
  {
    folder: "registries",
    title: "registry",
    remove: (backends, operation, id) => backends.registries.deleteRegistry(operation, id),
  },
];

/**
 * The things that the stack owns.
 * @param {string} state folder of the machine's things
 * @param {{ backend: string, project: string, stack: string }} owner
 * @returns {{ kind: (typeof kinds)[number], id: string, owner: object }[]}
 */
export function owned(state, owner) {
  const things = [];
  for (const kind of kinds) {
    let ids;
    try {
      ids = readdirSync(path.join(state, kind.folder));
    } catch (error) {
      if (error.code === "ENOENT") continue;
      throw error;
    }
    for (const id of ids.sort()) {
      let marker;
      try {
        marker = JSON.parse(readFileSync(path.join(state, kind.folder, id, "marker.json"), "utf8"));
      } catch (error) {
        // No marker: not a thing, or one that is being removed.
        if (["ENOENT", "ENOTDIR"].includes(error.code)) continue;
        throw error;
      }
      const { backend, project, stack } = marker.owner;
      if (backend === owner.backend && project === owner.project && stack === owner.stack) {
        things.push({ kind, id, owner: marker.owner });
      }
    }
  }
  return things;
}

/**
 * Ids of the resources in an exported stack.
 * @param {string} text
 * @returns {Set<string>}
 */
export function knownIds(text) {
  if (text.trim() === "") return new Set();
  return new Set((JSON.parse(text).deployment.resources ?? []).map(({ id }) => id).filter(Boolean));
}

/** Removes them, one after the other. */
export async function remove(things, backends, say) {
  for (const { kind, id, owner } of things) {
    say(`removing the ${kind.title} ${id}, which an interrupted run left (${owner.urn})`);
    const signal = AbortSignal.timeout(patience);
    const operation = {
      owner,
      signal,
      deadline: Date.now() + patience,
      log: (_severity, message) => say(message),
      status: () => undefined,
      checkpoint: async () => undefined,
    };
    await kind.remove(backends, operation, id);
  }
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [state, backend, project, stack] = process.argv.slice(2);
  if (!state || !backend || !project || !stack) {
    console.error("usage: leftovers.mjs STATE-FOLDER BACKEND-URL PROJECT STACK");
    process.exit(2);
  }
  const known = knownIds(readFileSync(0, "utf8"));
  const things = owned(state, { backend, project, stack }).filter(({ id }) => !known.has(id));
  if (things.length > 0) {
    const require = createRequire(import.meta.url);
    const { createLocalBackends } = require("../../dist/provider/local/index.js");
    const { defaultCacheDirectory } = require("../../dist/shared/directories.js");
    try {
      const backends = createLocalBackends({ stateDirectory: state, cacheDirectory: defaultCacheDirectory() });
      await remove(things, backends, (line) => console.log(`palisade: ${line}`));
    } catch (error) {
      console.error(`palisade: ${error.message}`);
      process.exitCode = 1;
    }
  }
}
