// Removes what a stack owns on this machine although its state does not know it: an `up` that was killed between making
// a thing and writing its state leaves one. Ownership is what the thing's marker says; things of other backends,
// projects and stacks are not touched, nor those that the state knows (`pulumi stack export` on standard input, or
// nothing where there is no state). The build has to be there.
// Usage: leftovers.mjs STATE-FOLDER BACKEND-URL PROJECT STACK
import { readFileSync } from "node:fs";
import { createRequire } from "node:module";
import { pathToFileURL } from "node:url";

/**
 * Ids of the resources in an exported stack.
 * @param {string} text
 * @returns {Set<string>}
 */
export function knownIds(text) {
  if (text.trim() === "") return new Set();
  return new Set((JSON.parse(text).deployment.resources ?? []).map(({ id }) => id).filter(Boolean));
}

async function removeLeftovers(stateDirectory, owner, known) {
  const require = createRequire(import.meta.url);
  const { createLocalBackends } = require("../../dist/provider/local/index.js");
  const { ownedThings, removeThings } = require("../../dist/provider/local/reap.js");
  const { defaultCacheDirectory } = require("../../dist/shared/directories.js");
  const things = (await ownedThings(stateDirectory, owner)).filter(({ id }) => !known.has(id));
  const backends = createLocalBackends({ stateDirectory, cacheDirectory: defaultCacheDirectory() });
  await removeThings(things, backends, (line) => console.log(`palisade: ${line}`));
}

if (import.meta.url === pathToFileURL(process.argv[1]).href) {
  const [state, backend, project, stack] = process.argv.slice(2);
  if (!state || !backend || !project || !stack) {
    console.error("usage: leftovers.mjs STATE-FOLDER BACKEND-URL PROJECT STACK");
    process.exit(2);
  }
  const known = knownIds(readFileSync(0, "utf8"));
  try {
    await removeLeftovers(state, { backend, project, stack }, known);
  } catch (error) {
    console.error(`palisade: ${error.message}`);
    process.exitCode = 1;
  }
}
