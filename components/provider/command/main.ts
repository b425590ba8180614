/** Entry of the plugin `pulumi-resource-command`: `node dist/components/provider/command/main.js <engine address>`. */
import { runPlugin } from "../server/index.js";
import { plugin } from "./plugin.js";

runPlugin(plugin).catch((error: unknown) => {
  process.stderr.write(`pulumi-resource-command: ${error instanceof Error ? error.stack : String(error)}\n`);
  process.exit(1);
});
