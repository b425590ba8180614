/**
 * What the provider's resources need from the machine they run on. Resources know the engine and these interfaces and
 * nothing else: the real implementations (QEMU, docker-registry, mkosi, the host's agent) and the fault-injecting ones
 * of the engine tests are interchangeable.
 *
 * Every method that creates something has the same contract:
 * - It is idempotent by `operation.owner`: when an ownership marker of the same owner exists, the call adopts what an
 *   earlier, killed call has begun, and finishes it. One owner never gets a second thing.
 * - The marker is written before anything is started or allocated.
 * - A process that outlives the call (QEMU, swtpm, a registry) runs in its own session, never as a child of the plugin.
 * - `operation.signal` ends the call early with an AbortError. What exists by then stays, with its marker, for the next
 *   call.
 * - `read*` returns what is observed. `undefined` means proven absence. What cannot be found out is thrown as an error.
 */
import type { Agents } from "./agents.js";
import type { Channels } from "./channels.js";
import type { HostImageStore } from "./host-images.js";
import type { Hypervisor } from "./hypervisor.js";
import type { ImageBuilder } from "./image-builder.js";
import type { ImagePatcher } from "./patcher.js";
import type { RegistryService } from "./registries.js";
import type { ImageSealer } from "./sealer.js";

export * from "./agents.js";
export * from "./channels.js";
export * from "./errors.js";
export * from "./host-images.js";
export * from "./hypervisor.js";
export * from "./image-builder.js";
export * from "./integrity.js";
export * from "./operation.js";
export * from "./patcher.js";
export * from "./registries.js";
export * from "./sealer.js";
export * from "./signing.js";

/** All services that the provider's resources use. */
export interface Backends {
  hypervisor(uri: string): Hypervisor;
  registries: RegistryService;
  images: ImageBuilder;
  sealer: ImageSealer;
  patcher: ImagePatcher;
  channels: Channels;
  hostImages: HostImageStore;
  agents: Agents;
}
