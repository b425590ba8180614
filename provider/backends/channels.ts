/** Signed pointers that say which digest a channel has. */
import type { Operation } from "./operation.js";
import type { RegistryAccess } from "./registries.js";
import type { SigningKey } from "./signing.js";

/** Tags that begin with it are channels: nothing else sets them. */
export const channelTagPrefix = "palisade-channel-";

export interface ChannelSpec {
  registry: RegistryAccess;
  repository: string;
  /** DNS label. */
  channel: string;
}
export interface ChannelPublication extends ChannelSpec {
  digest: string;
  /** Key of the seal that the image must have. */
  sealSigner: SigningKey;
  /** Key of the signature that the image must have; signs the publication. */
  imageSigner: SigningKey;
}
export interface ChannelTarget {
  /** What the channel leads to. */
  digest: string;
}
export interface Channels {
  /**
   * The digest that a channel leads to; undefined when the registry says that there is no such channel. Credentials as for
   * `ImageBuilder.readImage`.
   *
   * @param publicKey PEM: then the key must have published the digest into the channel, and not before a publication that this machine
   * has seen.
   */
  resolve(spec: ChannelSpec, publicKey?: string): Promise<string | undefined>;
  /**
   * Moves a channel to an image that is sealed and signed; does nothing when it is there.
   *
   * @param from where the channel is to be moved from: when it leads elsewhere by now, it stays. Default: anywhere.
   */
  publish(op: Operation, spec: ChannelPublication, from?: string): Promise<ChannelTarget>;
}
