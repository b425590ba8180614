/** Entry of the plugin `pulumi-resource-command`: `node dist/command-plugin/main.js <engine address>`. */
import { runPlugin } from "../provider/protocol/index.js";
import { plugin } from "./plugin.js";

runPlugin(plugin).catch((error: unknown) => {
  process.stderr.write(`pulumi-resource-command: ${error instanceof Error ? error.stack : String(error)}\n`);
  process.exit(1);
});
