/** The provider's backends on the real machine. */
import { resolve } from "node:path";
import { LocalAgents } from "./agent-client/local-agents.js";
import type { Backends } from "./backends.js";
import { LocalHostImages } from "./host-images/local-host-images.js";
import { createLocalHypervisor, demandLocal } from "./hypervisor/local-hypervisor.js";
import { HypervisorMarkers } from "./hypervisor/markers.js";
import { VirtualMachines } from "./hypervisor/virtual-machines.js";
import { DebianImageBuilder } from "./image-builder/debian-image-builder.js";
import { LocalRegistries } from "./registry/local-registries.js";

/** Nothing is read, made or dialled before the first call. */
export function createLocalBackends(config: { stateDirectory: string; cacheDirectory: string }): Backends {
  const state = resolve(config.stateDirectory);
  const cache = resolve(config.cacheDirectory);
  const markers = new HypervisorMarkers(state);
  const machines = new VirtualMachines(markers, cache);
  const hypervisor = createLocalHypervisor(markers, machines);
  return {
    hypervisor(uri) {
      demandLocal(uri);
      return hypervisor;
    },
    registries: new LocalRegistries(state),
    images: new DebianImageBuilder(cache),
    hostImages: new LocalHostImages(state, cache, (digest) => machines.usesImage(digest)),
    agents: new LocalAgents(machines),
  };
}
