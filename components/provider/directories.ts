/** Where the provider keeps what it makes, and looks for keys, when it is not told. Absolute paths. */
import { homedir } from "node:os";
import { join, resolve } from "node:path";

type Environment = Record<string, string | undefined>;

/** `$PALISADE_STATE`, else `$XDG_STATE_HOME/palisade`, else `~/.local/state/palisade`: disks, machines, registries. */
export function defaultStateDirectory(environment: Environment = process.env): string {
  const base = environment["XDG_STATE_HOME"] || join(homedir(), ".local", "state");
  return resolve(environment["PALISADE_STATE"] || join(base, "palisade"));
}

/** `$PALISADE_CACHE`, else `$XDG_CACHE_HOME/palisade`, else `~/.cache/palisade`: builds, by content. */
export function defaultCacheDirectory(environment: Environment = process.env): string {
  const base = environment["XDG_CACHE_HOME"] || join(homedir(), ".cache");
  return resolve(environment["PALISADE_CACHE"] || join(base, "palisade"));
}

/**
 * The folder that `palisade keys init` makes: `keys` in `$PALISADE_HOME`, else in `$XDG_DATA_HOME/palisade`, else in
 * `~/.local/share/palisade`.
 */
export function defaultKeysDirectory(environment: Environment = process.env): string {
  const base = environment["XDG_DATA_HOME"] || join(homedir(), ".local", "share");
  return join(resolve(environment["PALISADE_HOME"] || join(base, "palisade")), "keys");
}

/** A key of the keys folder with its certificate, named by its path there: `layers/layer`, `images/signer`. */
export function keyPair(keysDirectory: string, name: string): { certificateFile: string; keyFile: string } {
  return { certificateFile: join(keysDirectory, `${name}.crt`), keyFile: join(keysDirectory, `${name}.key`) };
}
