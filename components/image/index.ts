/**
 * Images: images of hosts, container images made from Debian packages, patches of their known vulnerabilities, the
 * seals that hosts require of container images, and the policies that say which images a host accepts.
 */
export { DebianImage, type DebianImageArgs } from "../../sdk/debianImage.js";
export { HostImage, type HostImageArgs } from "../../sdk/hostImage.js";
export { ImagePolicy, type ImagePolicyArgs } from "./image-policy.js";
export { PatchedImage, type PatchedImageArgs } from "../../sdk/patchedImage.js";
export { SealedImage, type SealedImageArgs } from "../../sdk/sealedImage.js";
