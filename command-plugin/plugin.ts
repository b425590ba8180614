import type { ProviderOptions } from "../provider/protocol/provider.js";
import { copyFile } from "./copy-file.js";
import { copyToRemote } from "./copy-to-remote.js";
import { localCommand } from "./local-command.js";
import { localRun } from "./local-run.js";
import { remoteCommand } from "./remote-command.js";
import { schemaText } from "./schema.js";

/** The secret fields of a connection, which is secret as a whole; messages may name address and user. */
const credentials = new Set<string | number>(["password", "privateKey", "privateKeyPassword"]);

/** What the plugin serves. Its resources need only this machine. */
export const plugin: Omit<ProviderOptions<undefined>, "engineAddress"> = {
  backends: () => undefined,
  resources: [localCommand, remoteCommand, copyToRemote, copyFile],
  functions: { "command:local:run": localRun },
  schema: schemaText,
  isShown: (path) => path[0] === "connection" && !credentials.has(path.at(-1)!),
  // As in the published plugin: a replacement runs `create` of the new command, then `delete` of the old one.
  deleteBeforeReplace: false,
};
