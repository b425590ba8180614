/** Images of Debian packages. */
import type { Operation } from "./operation.js";
import type { RegistryAccess } from "./registries.js";

export interface DebianImageSpec {
  registry: RegistryAccess;
  repository: string;
  tag: string;
  suite: string;
  packages: string[];
  /**
   * Whether packages come from the security updates too. false: only from the suite's last point release. Default:
   * true.
   */
  securityUpdates?: boolean;
  /** Whether the image contains apt and this machine's package sources of the suite. Default: false. */
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
/** The inputs of an image's build, as recorded in the image itself. */
export type MadeFrom = DebianImageContent & { inputsHash: string };
export interface ImageBuilder {
  /** Builds an image, or takes it from the cache by content, and pushes it. */
  buildDebianImage(op: Operation, spec: DebianImageSpec): Promise<DebianImageObserved>;
  /**
   * Asks the registry for an image; undefined when it answers that the digest does not exist. Without a user name, the
   * credentials of the registry of this machine with that server are used, for imports.
   */
  readImage(registry: RegistryAccess, repository: string, digest: string): Promise<DebianImageObserved | undefined>;
  /** The inputs of an existing image; undefined for one that Palisade did not build. Credentials as for `readImage`. */
  readMadeFrom(registry: RegistryAccess, repository: string, digest: string): Promise<MadeFrom | undefined>;
  /** A short stable hash over everything that decides the image's content, beyond the spec too. */
  inputsHash(content: DebianImageContent): Promise<string>;
}
