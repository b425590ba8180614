import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { makeKey } from "../../../provider/local/sealing/testing/bench.js";
import type { ImagePatcher } from "../../../provider/backends/index.js";
import { createFakeBackends } from "../../support/fakes/backends.js";
import { setChannel } from "../../support/fakes/image-services.js";
import { World, type Kind } from "../../support/fakes/world.js";
import { agentContract } from "./agent.js";
import { hypervisorContract } from "./hypervisor.js";
import {
  channelsContract,
  imageBuilderContract,
  imagePatcherContract,
  imageSealerContract,
  patchContract,
  type ImageSubject,
} from "./image-services.js";
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
const makeImages = async (): Promise<{ subject: ImageSubject; patcher: ImagePatcher; dispose(): Promise<void> }> => {
  const folder = await mkdtemp(path.join(tmpdir(), "palisade-contract-"));
  const world = new World(path.join(folder, "world"));
  const { registries, images, sealer, channels, patcher } = createFakeBackends(world);
  const { server, username, password, ca } = await registries.createRegistry(operation("registry"), { port: 0 });
  const key = (name: string) => makeKey(folder, name, "ec");
  const database = path.join(folder, "database");
  await mkdir(path.join(database, "db"), { recursive: true });
  await writeFile(path.join(database, "db/metadata.json"), "{}");
  const subject: ImageSubject = {
    ...{ images, sealer, channels, patcher, registry: { server, username, password, ca }, database },
    keys: { layerSigner: await key("layer"), sealSigner: await key("seal"), imageSigner: await key("signer") },
    others: { sealSigner: await key("other-seal"), imageSigner: await key("other-signer") },
    packages: { suite: "trixie", packages: ["base-files"] },
    setChannel: async ({ repository, channel }, digest) =>
      setChannel(world, `${server}/${repository}:${channel}`, digest),
  };
  return { subject, patcher, dispose: () => rm(folder, { recursive: true, force: true }) };
};

imageBuilderContract("fake", makeImages);
imageSealerContract("fake", makeImages);
channelsContract("fake", makeImages);
imagePatcherContract("fake", makeImages);
patchContract("fake", async () => {
  const { subject, patcher, dispose } = await makeImages();
  const { registry, keys, database } = subject;
  const digest = `sha256:${"1".repeat(64)}`;
  const spec = { registry, repository: "patched/web", digest, tag: "patched", database, imageSigner: keys.imageSigner };
  return { patcher, spec, dispose };
});
hypervisorContract("fake", makeFake);
registryContract("fake", makeFake);
