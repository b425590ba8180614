import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { createFakeBackends } from "../fakes/backends.js";
import { World, type Kind } from "../fakes/world.js";
import { agentContract } from "./agent.js";
import { hypervisorContract } from "./hypervisor.js";
import { registryContract } from "./registry.js";
import { operation, type MakeSubject } from "./subject.js";

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

agentContract("fake", async () => {
  const { subject, dispose } = await makeFake();
  const { backends, imageDigest, certificateAuthority, clientIdentity } = subject;
  const hypervisor = backends.hypervisor("local");
  const { id: stateDiskId } = await hypervisor.createStateDisk(operation("disk"), { sizeGiB: 1 });
  const { id, connection } = await hypervisor.createVirtualMachine(operation("machine"), {
    ...{ imageDigest, stateDiskId, certificateAuthority, clientIdentity },
    ...{ cpus: 1, memoryMiB: 1024, publishedPorts: [], acceleration: "auto", powerState: "running" },
  });
  return {
    subject: {
      connection: connection!,
      connect: (to) => backends.agents.connect(to),
      images: [1, 2].map((digit) => `registry.test/team/app@sha256:${String(digit).repeat(64)}`) as [string, string],
      registry: { server: "registry.test", username: "palisade", password: "registry-canary" },
      hasNetwork: true,
      silence: () => subject.silence(id),
    },
    dispose,
  };
});
hypervisorContract("fake", makeFake);
registryContract("fake", makeFake);
