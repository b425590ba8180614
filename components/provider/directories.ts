/** Where the provider keeps what it makes when its configuration does not say. Absolute paths. */
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
