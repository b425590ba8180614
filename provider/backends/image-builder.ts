/** Images of Debian packages. */
import type { Operation } from "./operation.js";
import type { RegistryAccess } from "./registries.js";

export interface DebianImageSpec {
  registry: RegistryAccess;
  repository: string;
  tag: string;
  suite: string;
  packages: string[];
  /** Default: true; else the packages are those of the suite's last point release. */
  securityUpdates?: boolean;
  /** Default: false; else the image holds apt and this machine's package sources of the suite. */
  packageSources?: boolean;
  entrypoint: string[];
  command: string[];
  environment: Record<string, string>;
  workingDirectory: string;
  /** Files written into the image after the packages: absolute path → content. */
  files: Record<string, string>;
}
/** Everything of an image but where it is pushed. */
export type DebianImageContent = Omit<DebianImageSpec, "registry">;
export interface DebianImageObserved {
  /** sha256:<hex> of the manifest in the registry. */
  digest: string;
  /** <server>/<repository>@<digest> */
  reference: string;
}
/** What an image was made from, as recorded in the image itself. */
export type MadeFrom = DebianImageContent & { inputsHash: string };
export interface ImageBuilder {
  /** Builds (or takes from the cache by content) and pushes. */
  buildDebianImage(op: Operation, spec: DebianImageSpec): Promise<DebianImageObserved>;
  /**
   * Asks the registry; undefined when it says that the digest is not there. Without a user name, the credentials of a registry
   * of this machine with that server are used, for imports.
   */
  readImage(registry: RegistryAccess, repository: string, digest: string): Promise<DebianImageObserved | undefined>;
  /** For an image that is there, with credentials as for `readImage`; undefined for one that is not ours. */
  readMadeFrom(registry: RegistryAccess, repository: string, digest: string): Promise<MadeFrom | undefined>;
  /** A short stable string over everything that decides the image's content but is not in the spec. */
  inputsHash(content: DebianImageContent): Promise<string>;
}
