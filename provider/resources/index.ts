/** All resources of the provider. */
import type { Resource } from "../protocol/resource.js";
import { debianImage } from "./debian-image.js";
import { groupDeployment } from "./group-deployment.js";
import { hostImage } from "./host-image.js";
import { hostIntegrity } from "./host-integrity.js";
import { imagePolicy } from "./image-policy.js";
import { networkPolicy } from "./network-policy.js";
import { patchedImage } from "./patched-image.js";
import { registry } from "./registry.js";
import { sealedImage } from "./sealed-image.js";
import { stateDisk } from "./state-disk.js";
import { virtualMachine } from "./virtual-machine.js";

export const resources: Resource[] = [
  registry,
  debianImage,
  patchedImage,
  sealedImage,
  hostImage,
  stateDisk,
  virtualMachine,
  hostIntegrity,
  imagePolicy,
  networkPolicy,
  groupDeployment,
];
