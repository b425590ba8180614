/** Entry of the plugin `pulumi-resource-palisade`: `node dist/components/provider/main.js <engine address>`. */
import type { Backends } from "./backends.js";
import { defaultCacheDirectory, defaultStateDirectory } from "./directories.js";
import { resources } from "./resources/index.js";
import { schemaText } from "./resources/schema.js";
import { runPlugin, type Configuration } from "./server/index.js";

/** Loaded when the engine configures the provider: its schema is served without QEMU's and the registry's code. */
function backends(configuration: Configuration): Backends {
  // eslint-disable-next-line @typescript-eslint/no-require-imports -- on demand, and Configure's answer needs it at once
  const local = require("./backends-local.js") as typeof import("./backends-local.js");
  return local.createLocalBackends({
    stateDirectory: configuration.stateDirectory ?? defaultStateDirectory(),
    cacheDirectory: configuration.cacheDirectory ?? defaultCacheDirectory(),
  });
}

runPlugin({ backends, resources, schema: schemaText }).catch((error: unknown) => {
  process.stderr.write(`pulumi-resource-palisade: ${error instanceof Error ? error.stack : String(error)}\n`);
  process.exit(1);
});
