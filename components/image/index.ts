/**
 * Images: of hosts, of containers made from Debian packages, patches of what is known to be vulnerable in them, the seals that hosts demand of containers' images, and which
 * images a host accepts.
 */
export { DebianImage, type DebianImageArgs } from "../../sdk/debianImage.js";
export { HostImage, type HostImageArgs } from "../../sdk/hostImage.js";
export { ImagePolicy, type ImagePolicyArgs } from "./image-policy.js";
export { PatchedImage, type PatchedImageArgs } from "../../sdk/patchedImage.js";
export { SealedImage, type SealedImageArgs } from "../../sdk/sealedImage.js";
