/** Where Palisade keeps what belongs to the operator: never in the clone, never in a stack's state. */
import { existsSync } from "node:fs";
import { homedir } from "node:os";
import path from "node:path";

type Environment = Record<string, string | undefined>;

/** `$PALISADE_HOME`, else `$XDG_DATA_HOME/palisade`, else `~/.local/share/palisade`: keys, passphrase, backend. */
export function operatorHome(environment: Environment = process.env): string {
  const base = environment["XDG_DATA_HOME"] || path.join(homedir(), ".local", "share");
  return path.resolve(environment["PALISADE_HOME"] || path.join(base, "palisade"));
}

/** The folder that `palisade keys init` makes: `keys` in the operator's home. */
export function defaultKeysDirectory(environment: Environment = process.env): string {
  return path.join(operatorHome(environment), "keys");
}

/** `$PALISADE_CACHE`, else `$XDG_CACHE_HOME/palisade`, else `~/.cache/palisade`: builds and tools, by content. */
export function cacheDirectory(environment: Environment = process.env): string {
  const base = environment["XDG_CACHE_HOME"] || path.join(homedir(), ".cache");
  return path.resolve(environment["PALISADE_CACHE"] || path.join(base, "palisade"));
}

/** A key of the keys folder with its certificate, named by its path there: `layers/layer`, `images/signer`. */
export function keyPair(keysDirectory: string, name: string): { certificateFile: string; keyFile: string } {
  return { certificateFile: path.join(keysDirectory, `${name}.crt`), keyFile: path.join(keysDirectory, `${name}.key`) };
}

/** `$PALISADE_STATE`, else `$XDG_STATE_HOME/palisade`, else `~/.local/state/palisade`: what exists on this machine. */
export function stateDirectory(environment: Environment = process.env): string {
  const base = environment["XDG_STATE_HOME"] || path.join(homedir(), ".local", "state");
  return path.resolve(environment["PALISADE_STATE"] || path.join(base, "palisade"));
}

/** Root of the clone or of the installed package, seen from the source as from its compiled file. */
export function packageRoot(folder = __dirname): string {
  if (existsSync(path.join(folder, "package.json"))) return folder;
  const parent = path.dirname(folder);
  if (parent === folder) throw new Error(`${__dirname}: no package.json in any folder above`);
  return packageRoot(parent);
}

/** Files of the keys folder that hosts are reached with, relative to it. */
export const hostKeyFiles = {
  certificateAuthority: { certificateFile: "hosts/ca.crt", keyFile: "hosts/ca.key" },
  clientIdentity: { certificateFile: "hosts/client.crt", keyFile: "hosts/client.key" },
} as const;
