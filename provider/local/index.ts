/** The provider's backends on the real machine. */
import { resolve } from "node:path";
import { LocalAgents } from "./agent-client/local-agents.js";
import type { Backends } from "../backends/index.js";
import { LocalChannels } from "./channels/local-channels.js";
import { LocalHostImages } from "./host-images/local-host-images.js";
import { createLocalHypervisor, requireLocal } from "./hypervisor/local-hypervisor.js";
import { HypervisorMarkers } from "./hypervisor/markers.js";
import { VirtualMachines } from "./hypervisor/virtual-machines.js";
import { DebianImageBuilder } from "./image-builder/debian-image-builder.js";
import { LocalPatcher } from "./patching/local-patcher.js";
import { LocalSealer } from "./sealing/local-sealer.js";
import { LocalRegistries } from "./registry/local-registries.js";

/** Nothing is read, made or dialled before the first call. */
export function createLocalBackends(config: { stateDirectory: string; cacheDirectory: string }): Backends {
  const state = resolve(config.stateDirectory);
  const cache = resolve(config.cacheDirectory);
  const markers = new HypervisorMarkers(state);
  const machines = new VirtualMachines(markers, cache);
  const hypervisor = createLocalHypervisor(markers, machines);
  const registries = new LocalRegistries(state);
  return {
    hypervisor(uri) {
      requireLocal(uri);
      return hypervisor;
    },
    registries,
    images: new DebianImageBuilder(cache, (server) => registries.findRegistry(server)),
    sealer: new LocalSealer(cache, (server) => registries.findRegistry(server)),
    patcher: new LocalPatcher(state, cache, registries),
    channels: new LocalChannels(state, cache, (server) => registries.findRegistry(server)),
    hostImages: new LocalHostImages(state, cache, (digest) => machines.usesImage(digest)),
    agents: new LocalAgents(machines),
  };
}
