/** Entry of the plugin `pulumi-resource-palisade`: `node dist/provider/main.js <engine address>`. */
import type { Backends } from "./backends/index.js";
import { defaultCacheDirectory, defaultStateDirectory } from "../shared/directories.js";
import { resources } from "./resources/index.js";
import { schemaText } from "./schema/schema.js";
import { runPlugin, type Configuration } from "./protocol/index.js";

/** Loaded when the engine configures the provider, so that the schema is served without loading the backends' code. */
function backends(configuration: Configuration): Backends {
  // eslint-disable-next-line @typescript-eslint/no-require-imports -- loaded on demand, and Configure needs it synchronously
  const local = require("./local/index.js") as typeof import("./local/index.js");
  return local.createLocalBackends({
    stateDirectory: configuration.stateDirectory ?? defaultStateDirectory(),
    cacheDirectory: configuration.cacheDirectory ?? defaultCacheDirectory(),
  });
}

runPlugin({ backends, resources, schema: schemaText }).catch((error: unknown) => {
  process.stderr.write(`pulumi-resource-palisade: ${error instanceof Error ? error.stack : String(error)}\n`);
  process.exit(1);
});
