/** Images of the host: built, and kept in a store. */
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
  /** Of the kernel image that boots; with `-debug` or `-probe` behind it for an image that is no product. */
  mode: string;
  /** SHA-256 fingerprints, hex, of the certificates in the firmware's db. */
  trustedCertificates: string[];
  /** What it was built from on this machine; absent for an image that came from elsewhere. */
  builtFrom?: { build: HostImageBuildSpec; inputsHash: string };
}
export interface HostImageStore {
  /** Hash over every input of the build: definition, binaries, certificates, package sources. Reads files only. */
  inputsHash(spec: HostImageBuildSpec): Promise<string>;
  /** Builds, or takes what was built from the same inputs. */
  build(op: Operation, spec: HostImageBuildSpec): Promise<HostImageObserved>;
  read(digest: string): Promise<HostImageObserved | undefined>;
  /** What was built from inputs of this hash, while it is still here; lets a preview tell the digest. */
  findBuilt(inputsHash: string): Promise<HostImageObserved | undefined>;
  /**
   * Gives up the owner's claim on an image. Images are shared by stacks: it leaves the store with the last claim, if no machine
   * uses it; what was built stays in the cache.
   */
  release(op: Operation, digest: string): Promise<void>;
}
