/**
 * The provider on the fault-injecting backends, as a plugin: `node dist/test/support/fakes/plugin.js <world folder>
 * <engine address>`.
 */
import { resources } from "../../../provider/resources/index.js";
import { schemaText } from "../../../provider/schema/schema.js";
import { runPlugin } from "../../../provider/protocol/index.js";
import { createFakeBackends } from "./backends.js";
import { World } from "./world.js";

const directory = process.argv[2];
if (!directory) throw new Error("usage: plugin.js <world folder> [engine address]");
const world = new World(directory);
/** Checkpoints of resources. All others belong to the backends, which know when a call is cancelled. */
const resourceCheckpoints = new Set(["group-ready", "image-policy-applied", "network-policy-applied"]);
const checkpoint = async (name: string): Promise<void> => {
  if (resourceCheckpoints.has(name)) await world.reach(name, AbortSignal.timeout(3000));
};

runPlugin({ backends: () => createFakeBackends(world), resources, schema: schemaText, checkpoint }).catch(
  (error: unknown) => {
    process.stderr.write(`${error instanceof Error ? error.stack : String(error)}\n`);
    process.exit(1);
  },
);
