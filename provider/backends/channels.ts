/** Channels: signed pointers in a registry, each to the digest of an image. */
import type { Operation } from "./operation.js";
import type { RegistryAccess } from "./registries.js";
import type { SigningKey } from "./signing.js";

/** Prefix of the tags that are channels. Only publishing into a channel sets such a tag. */
export const channelTagPrefix = "palisade-channel-";

export interface ChannelSpec {
  registry: RegistryAccess;
  repository: string;
  /** DNS label. */
  channel: string;
}
export interface ChannelPublication extends ChannelSpec {
  digest: string;
  /** The image must have a seal by this key. */
  sealSigner: SigningKey;
  /** The image must have a signature by this key, which also signs the publication. */
  imageSigner: SigningKey;
}
export interface ChannelTarget {
  /** The digest that the channel points to. */
  digest: string;
}
export interface Channels {
  /**
   * The digest that a channel points to; undefined when the registry answers that there is no such channel. Credentials
   * as for `ImageBuilder.readImage`.
   *
   * @param publicKey PEM. When given, the digest must have been published into the channel by this key, and by no older
   * publication than the newest one that this machine has seen.
   */
  resolve(spec: ChannelSpec, publicKey?: string): Promise<string | undefined>;
  /**
   * Moves a channel to an image that is sealed and signed. Does nothing when it points there already.
   *
   * @param from the digest that the channel must still point to; when it points to another one, it stays. Default: any
   */
  publish(op: Operation, spec: ChannelPublication, from?: string): Promise<ChannelTarget>;
}
