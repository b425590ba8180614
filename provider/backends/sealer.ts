/** Seals of images: signed root hashes of their layers. */
import type { Operation } from "./operation.js";
import type { RegistryAccess } from "./registries.js";
import type { SigningKey } from "./signing.js";

export interface SealSpec {
  registry: RegistryAccess;
  repository: string;
  digest: string;
  /** Signs the layers' root hashes, for the kernel. */
  layerSigner: SigningKey;
  /** Signs the seal manifest, for hosts. */
  sealSigner: SigningKey;
  /** Signs the image in cosign's format. Default: the image is not signed. */
  imageSigner?: SigningKey;
}
export interface SealObserved {
  digest: string;
  /** <server>/<repository>@<digest> */
  reference: string;
  /** sha256:<hex> of the seal's manifest in the registry. */
  sealDigest: string;
  /** Root hashes of the layers, bottom first, hex. */
  rootHashes: string[];
  /** SHA-256 of the layer signer's certificate in DER, hex. */
  layerKey: string;
  /** SHA-256 of the seal signer's public key (SubjectPublicKeyInfo in DER), hex. */
  sealKeyId: string;
  /** Number of layers that had been sealed before. */
  reusedLayers: number;
}
/** A seal in a registry, with the signers that an import records. */
export interface SealFound extends SealObserved {
  /**
   * Signers among the operator's keys; imageSigner only when the image itself is signed. Absent when `known` was given.
   */
  signers?: { layerSigner: SigningKey; sealSigner: SigningKey; imageSigner?: SigningKey };
}
export interface ImageSealer {
  /**
   * Identities of the signers, from their certificates. Reads files only.
   *
   * @throws PropertyError for a file that cannot be read
   */
  identify(keys: Pick<SealSpec, "layerSigner" | "sealSigner">): Promise<Pick<SealObserved, "layerKey" | "sealKeyId">>;
  /**
   * Seals the layers that are not sealed yet and publishes the seal. The result is the same for the same image and
   * keys.
   */
  seal(op: Operation, spec: SealSpec): Promise<SealObserved>;
  /**
   * The seal of an image by the seal key; undefined when the registry answers that there is none. Credentials as for
   * `ImageBuilder.readImage`.
   *
   * @param known the seal that was observed before. One by another seal key is returned as long as it exists
   * @param sealCertificateFile default: the seal certificate of the operator's keys
   */
  readSeal(
    registry: RegistryAccess,
    repository: string,
    digest: string,
    known?: SealObserved,
    sealCertificateFile?: string,
  ): Promise<SealFound | undefined>;
}
