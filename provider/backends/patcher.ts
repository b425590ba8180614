/** Images without the vulnerabilities that have a fix. */
import type { Operation } from "./operation.js";
import type { RegistryAccess } from "./registries.js";
import type { SigningKey } from "./signing.js";

export interface PatchSpec {
  registry: RegistryAccess;
  repository: string;
  /** Of the original image. */
  digest: string;
  /** Tag that is set to the patched image, last; absent: none. */
  tag?: string;
  /** Folder of the vulnerability database. Default: the one that `palisade vulndb build` makes. */
  database?: string;
  /** Signs the OpenVEX attestation. */
  imageSigner: SigningKey;
}
export interface PatchObserved {
  /** Of the patched image; the original's when nothing in that is fixable. */
  digest: string;
  /** <server>/<repository>@<digest> */
  reference: string;
  /** Pairs of vulnerability and package that some version fixes: in the original, in `digest`. */
  fixableBefore: number;
  fixableAfter: number;
  /** What `digest` has, each as `<vulnerability> <package>`: what no version fixes. */
  remaining: string[];
  databaseDigest: string;
  /** ISO 8601. */
  scannedAt: string;
  /** <server>/<repository>@<digest> of the OpenVEX attestation; absent when nothing was patched. */
  vexReference?: string;
}
/** What a registry tells of a patched image. */
export interface PatchedFound {
  digest: string;
  /** <server>/<repository>@<digest> */
  reference: string;
  /** For an import: how it was made, when the operator's key has attested it. */
  made?: {
    /** Digest of the image it was patched from. */
    original: string;
    tag?: string;
    observed: PatchObserved;
    imageSigner: SigningKey;
    /** The channel into which that key has published it last, where it leads now, and the operator's keys for it. */
    channel?: { name: string; digest?: string; layerSigner: SigningKey; sealSigner: SigningKey };
  };
}
export interface ImagePatcher {
  /** Digest of a vulnerability database; reads small files only. Throws a PropertyError when there is none. */
  databaseDigest(directory?: string): Promise<string>;
  /** Throws a PropertyError that says what this machine lacks to patch, and how it is got. */
  requireTools(): Promise<void>;
  /**
   * Scans, and patches what is fixable, always from the original.
   *
   * @param previous digest of an earlier patch of the same original, which is kept while nothing in it is fixable.
   */
  patch(op: Operation, spec: PatchSpec, previous?: string): Promise<PatchObserved>;
  /**
   * undefined when the registry says that the digest is not there. Credentials as for `ImageBuilder.readImage`.
   *
   * @param isKnown whether how it was made need not be told.
   */
  readPatched(
    registry: RegistryAccess,
    repository: string,
    digest: string,
    isKnown: boolean,
  ): Promise<PatchedFound | undefined>;
  /** Ends what an interrupted patch has left running, and removes it. */
  endPatch(op: Operation, id: string): Promise<void>;
}
