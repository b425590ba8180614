/** Images of hosts: their builds, and the store that holds them. */
import type { Operation } from "./operation.js";

export interface HostImageBuildSpec {
  mode: "enforce" | "audit" | "jit";
  keysDirectory: string;
}
export interface HostImageObserved {
  /** sha256:<hex> of the disk image. */
  digest: string;
  /** Folder in the image store. */
  directory: string;
  rootHash: string;
  ipePolicy: string;
  /** Mode of the kernel image that boots. It ends in `-debug` or `-probe` for an image that is not for production. */
  mode: string;
  /** SHA-256 fingerprints, hex, of the certificates in the firmware's db. */
  trustedCertificates: string[];
  /** The build on this machine; absent for an image that was copied here. */
  builtFrom?: { build: HostImageBuildSpec; inputsHash: string };
}
export interface HostImageStore {
  /** Hash over every input of the build: definition, binaries, certificates, package sources. Reads files only. */
  inputsHash(spec: HostImageBuildSpec): Promise<string>;
  /** Builds an image, or returns the one that was built from the same inputs. */
  build(op: Operation, spec: HostImageBuildSpec): Promise<HostImageObserved>;
  read(digest: string): Promise<HostImageObserved | undefined>;
  /** The image that was built from inputs of this hash, while it is in the cache. A preview can show its digest. */
  findBuilt(inputsHash: string): Promise<HostImageObserved | undefined>;
  /**
   * Gives up the owner's claim on an image. Stacks share images: it is removed from the store with the last claim,
   * unless a machine uses it. Its build stays in the cache.
   */
  release(op: Operation, digest: string): Promise<void>;
}
