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
  /** Signs the image in cosign's format; absent: it is not signed. */
  imageSigner?: SigningKey;
}
export interface SealObserved {
  digest: string;
  /** <server>/<repository>@<digest> */
  reference: string;
  /** sha256:<hex> of the seal's manifest in the registry. */
  sealDigest: string;
  /** Of the layers, bottom first, hex. */
  rootHashes: string[];
  /** SHA-256 of the layer signer's certificate in DER, hex. */
  layerKey: string;
  /** SHA-256 of the seal signer's public key (SubjectPublicKeyInfo in DER), hex. */
  sealKeyId: string;
  /** Layers that had been sealed before. */
  reusedLayers: number;
}
/** A seal that was found, with the signers that an import records. */
export interface SealFound extends SealObserved {
  /** Of the operator's keys; imageSigner only where the image itself is signed. Absent unless nothing was known before. */
  signers?: { layerSigner: SigningKey; sealSigner: SigningKey; imageSigner?: SigningKey };
}
export interface ImageSealer {
  /** Identities of the signers, from their certificates; reads files only. Throws a PropertyError for what cannot be read. */
  identify(keys: Pick<SealSpec, "layerSigner" | "sealSigner">): Promise<Pick<SealObserved, "layerKey" | "sealKeyId">>;
  /** Seals what is not sealed yet and publishes; the same for the same image and keys. */
  seal(op: Operation, spec: SealSpec): Promise<SealObserved>;
  /**
   * The seal of an image that the seal key has signed; undefined when the registry says that there is none. Credentials as for
   * `ImageBuilder.readImage`.
   *
   * @param known what was observed before: when it was made with another seal key, it counts as long as it is there.
   * @param sealCertificateFile default: the seal certificate of the operator's keys.
   */
  readSeal(
    registry: RegistryAccess,
    repository: string,
    digest: string,
    known?: SealObserved,
    sealCertificateFile?: string,
  ): Promise<SealFound | undefined>;
}
