/** Patching of images: updates of the packages with known vulnerabilities. */
import type { Operation } from "./operation.js";
import type { RegistryAccess } from "./registries.js";
import type { SigningKey } from "./signing.js";

export interface PatchSpec {
  registry: RegistryAccess;
  repository: string;
  /** Digest of the original image. */
  digest: string;
  /** Tag that is set to the patched image, as the last step. Default: none. */
  tag?: string;
  /** Folder of the vulnerability database. Default: the one that `palisade vulndb build` makes. */
  database?: string;
  /** Signs the OpenVEX attestation. */
  imageSigner: SigningKey;
}
export interface PatchObserved {
  /** Digest of the patched image; the original's digest when nothing in the original is fixable. */
  digest: string;
  /** <server>/<repository>@<digest> */
  reference: string;
  /** Pairs of a vulnerability and a package in the original for which a fixed version exists. */
  fixableBefore: number;
  /** The same in `digest`. */
  fixableAfter: number;
  /** Vulnerabilities in `digest` that no version fixes, each as `<vulnerability> <package>`. */
  remaining: string[];
  databaseDigest: string;
  /** ISO 8601. */
  scannedAt: string;
  /** <server>/<repository>@<digest> of the OpenVEX attestation; absent when nothing was patched. */
  vexReference?: string;
}
/** A patched image as a registry describes it. */
export interface PatchedFound {
  digest: string;
  /** <server>/<repository>@<digest> */
  reference: string;
  /** For an import: how the image was patched, when the operator's key has attested it. */
  made?: {
    /** Digest of the image it was patched from. */
    original: string;
    tag?: string;
    observed: PatchObserved;
    imageSigner: SigningKey;
    /**
     * The channel into which that key has published the image last, the digest it points to now, and the operator's
     * keys for it.
     */
    channel?: { name: string; digest?: string; layerSigner: SigningKey; sealSigner: SigningKey };
  };
}
export interface ImagePatcher {
  /**
   * Digest of a vulnerability database. Reads small files only.
   *
   * @throws PropertyError when there is none
   */
  databaseDigest(directory?: string): Promise<string>;
  /** @throws PropertyError when a tool that patching needs is missing, with how to install it */
  requireTools(): Promise<void>;
  /**
   * Scans the image and patches what is fixable, always from the original.
   *
   * @param previous digest of an earlier patch of the same original. It is kept while nothing in it is fixable
   */
  patch(op: Operation, spec: PatchSpec, previous?: string): Promise<PatchObserved>;
  /**
   * A patched image; undefined when the registry answers that the digest does not exist. Credentials as for
   * `ImageBuilder.readImage`.
   *
   * @param isKnown whether the caller knows already how it was patched, so that `made` can be absent
   */
  readPatched(
    registry: RegistryAccess,
    repository: string,
    digest: string,
    isKnown: boolean,
  ): Promise<PatchedFound | undefined>;
  /** Ends the processes that an interrupted patch has left running, and removes its files. */
  endPatch(op: Operation, id: string): Promise<void>;
}
