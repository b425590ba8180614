/** Where Palisade keeps its files: absolute paths outside of the clone, and the folder of the package itself. */
import { existsSync, readFileSync } from "node:fs";
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
export function defaultCacheDirectory(environment: Environment = process.env): string {
  const base = environment["XDG_CACHE_HOME"] || path.join(homedir(), ".cache");
  return path.resolve(environment["PALISADE_CACHE"] || path.join(base, "palisade"));
}

/** A key of the keys folder with its certificate, named by its path there: `layers/layer`, `images/signer`. */
export function keyPair(keysDirectory: string, name: string): { certificateFile: string; keyFile: string } {
  return { certificateFile: path.join(keysDirectory, `${name}.crt`), keyFile: path.join(keysDirectory, `${name}.key`) };
}

/** `$PALISADE_STATE`, else `$XDG_STATE_HOME/palisade`, else `~/.local/state/palisade`: what exists on this machine. */
export function defaultStateDirectory(environment: Environment = process.env): string {
  const base = environment["XDG_STATE_HOME"] || path.join(homedir(), ".local", "state");
  return path.resolve(environment["PALISADE_STATE"] || path.join(base, "palisade"));
}

/** The folder of this npm package: the same for the source tree, for `dist` and for an installed package. */
export function packageRoot(from = __dirname): string {
  for (let folder = from; ; folder = path.dirname(folder)) {
    const manifest = path.join(folder, "package.json");
    if (existsSync(manifest)) {
      const { name } = JSON.parse(readFileSync(manifest, "utf8")) as { name?: string };
      if (name === "@palisade-host/palisade") return folder;
    }
    if (folder === path.dirname(folder))
      throw new Error(`the package @palisade-host/palisade was not found above ${from}`);
  }
}

/** Files of the keys folder that hosts are reached with, relative to it. */
export const hostKeyFiles = {
  certificateAuthority: { certificateFile: "hosts/ca.crt", keyFile: "hosts/ca.key" },
  clientIdentity: { certificateFile: "hosts/client.crt", keyFile: "hosts/client.key" },
} as const;
