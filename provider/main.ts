/** Entry of the plugin `pulumi-resource-palisade`: `node dist/provider/main.js <engine address>`. */
import type { Backends } from "./backends/index.js";
import { defaultCacheDirectory, defaultStateDirectory } from "../shared/directories.js";
import { resources } from "./resources/index.js";
import { schemaText } from "./schema/schema.js";
import { runPlugin, type Configuration } from "./protocol/index.js";

/** Loaded when the engine configures the provider: its schema is served without QEMU's and the registry's code. */
function backends(configuration: Configuration): Backends {
  // eslint-disable-next-line @typescript-eslint/no-require-imports -- on demand, and Configure's answer needs it at once
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
