import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { createFakeBackends } from "../fakes/backends.js";
import { World, type Kind } from "../fakes/world.js";
import { hypervisorContract } from "./hypervisor.js";
import { registryContract } from "./registry.js";
import type { MakeSubject } from "./subject.js";

const makeFake: MakeSubject = async () => {
  const folder = await mkdtemp(path.join(tmpdir(), "palisade-contract-"));
  const world = new World(path.join(folder, "world"));
  const files = { certificateFile: path.join(folder, "crt"), keyFile: path.join(folder, "key") };
  for (const file of Object.values(files)) await writeFile(file, "fake");
  const observe = (kind: Kind, id: string, observed: Record<string, unknown>) => {
    const thing = world.get(kind, id)!;
    thing.observed = { ...thing.observed, ...observed };
    world.put(kind, thing);
  };
  return {
    subject: {
      backends: createFakeBackends(world),
      imageDigest: `sha256:${"0".repeat(64)}`,
      certificateAuthority: files,
      clientIdentity: files,
      crash: async (id) => observe("virtual-machines", id, { powerState: "stopped" }),
      silence: async (id) => {
        observe("virtual-machines", id, { unreachable: true });
        return async () => observe("virtual-machines", id, { unreachable: false });
      },
      crashRegistry: async (id) => observe("registries", id, { powerState: "stopped" }),
    },
    dispose: () => rm(folder, { recursive: true, force: true }),
  };
};

hypervisorContract("fake", makeFake);
registryContract("fake", makeFake);
