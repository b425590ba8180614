/**
 * The provider's backends on a World: the contract of the real ones without a machine, with faults where a test wants
 * them.
 */
import { createHash, randomBytes } from "node:crypto";
import { hostPort as joined } from "../../../shared/host-port.js";
import {
  ForeignHostError,
  removeHosted,
  UnreachableHostError,
  type AgentClient,
  type Agents,
  type Backends,
  type BootProgress,
  type HostConnection,
  type HostedThing,
  type HostImageBuildSpec,
  type HostImageObserved,
  type HostImageStore,
  type Hypervisor,
  type Operation,
  type RegistryObserved,
  type RegistryService,
  type RegistrySpec,
  type StateDiskObserved,
  type StateDiskSpec,
  type VirtualMachineObserved,
  type VirtualMachineSpec,
} from "../../../provider/backends/index.js";
import { FakeAgent, hostAuthority, hostIdOf } from "./agent.js";
import { expectedIntegrity, factsOfMachine } from "./integrity.js";
import { FakeChannels, FakeImages, FakePatcher, FakeSealer } from "./image-services.js";
import { make } from "./make.js";
import { registryOf } from "./registry.js";
import { World, type Kind, type Thing } from "./world.js";

const digestOf = (value: unknown): string =>
  `sha256:${createHash("sha256").update(JSON.stringify(value)).digest("hex")}`;

function existing<T>(world: World, kind: Kind, id: string): Thing<T> {
  const thing = world.get<T>(kind, id);
  if (!thing) throw new Error(`${id}: there is no such thing among ${kind}`);
  return thing;
}

class FakeHypervisor implements Hypervisor {
  constructor(private readonly world: World) {}

  async createStateDisk(op: Operation, spec: StateDiskSpec): Promise<StateDiskObserved> {
    const thing = await make(this.world, "state-disks", "disk", op, spec, ["disk-created"]);
    if (!thing.observed["hostId"]) {
      thing.observed["hostId"] = randomBytes(8).toString("hex");
      this.world.put("state-disks", thing);
    }
    return this.disk(thing);
  }

  async readStateDisk(id: string): Promise<StateDiskObserved | undefined> {
    const thing = this.world.get<StateDiskSpec>("state-disks", id);
    return thing && this.disk(thing);
  }

  async resizeStateDisk(_op: Operation, id: string, sizeGiB: number): Promise<StateDiskObserved> {
    const thing = existing<StateDiskSpec>(this.world, "state-disks", id);
    thing.spec.sizeGiB = sizeGiB;
    this.world.put("state-disks", thing);
    return this.disk(thing);
  }

  async deleteStateDisk(_op: Operation, id: string): Promise<void> {
    const user = this.world
      .list<VirtualMachineSpec>("virtual-machines")
      .find((machine) => machine.spec.stateDiskId === id);
    if (user) throw new Error(`${id}: the disk is attached to ${user.id}`);
    // Groups and policies live on their host's disk.
    const hostId = String(this.world.get("state-disks", id)?.observed["hostId"]);
    for (const kind of ["groups", "image-policies", "network-policies"] as const) {
      for (const thing of this.world.list(kind)) {
        if (thing.id === hostId || thing.id.startsWith(`${hostId}/`)) this.world.remove(kind, thing.id);
      }
    }
    this.world.remove("state-disks", id);
  }

  async createVirtualMachine(op: Operation, spec: VirtualMachineSpec): Promise<VirtualMachineObserved> {
    const thing = await make(this.world, "virtual-machines", "vm", op, this.withPorts(spec), [
      "tpm-started",
      "qemu-started",
      "booted",
      "enrolled",
    ]);
    await this.removeWhatIsDue(thing);
    return this.machine(thing);
  }

  async readVirtualMachine(id: string): Promise<VirtualMachineObserved | undefined> {
    const thing = this.world.get<VirtualMachineSpec>("virtual-machines", id);
    if (!thing) return undefined;
    this.reachable(thing);
    return this.machine(thing);
  }

  async updateVirtualMachine(op: Operation, id: string, spec: VirtualMachineSpec): Promise<VirtualMachineObserved> {
    const thing = existing<VirtualMachineSpec>(this.world, "virtual-machines", id);
    await this.world.reach("machine-updated", op.signal);
    thing.spec = this.withPorts(spec);
    // `wrongFacts` stay: what the machine boots is wrong, and not only what its firmware was told.
    const { wrongFacts } = thing.observed;
    thing.observed = wrongFacts === undefined ? {} : { wrongFacts };
    this.world.put("virtual-machines", thing);
    await this.removeWhatIsDue(thing);
    return this.machine(thing);
  }

  async deleteVirtualMachine(op: Operation, id: string, force: boolean): Promise<void> {
    const thing = this.world.get<VirtualMachineSpec>("virtual-machines", id);
    if (!thing) return;
    if (!force) this.reachable(thing);
    await this.world.reach("machine-deleted", op.signal);
    this.world.remove("virtual-machines", id);
  }

  private async removeWhatIsDue(thing: Thing<VirtualMachineSpec>): Promise<void> {
    const { connection, powerState } = this.machine(thing);
    const disk = this.world.get<StateDiskSpec>("state-disks", thing.spec.stateDiskId);
    if (!disk || powerState === "stopped") return;
    const { removals = [], ...observed } = disk.observed as { removals?: HostedThing[] };
    for (const due of removals) await removeHosted(new FakeAgent(this.world, connection!), due);
    this.world.put("state-disks", { ...disk, observed });
  }

  private reachable(thing: Thing<VirtualMachineSpec>): void {
    if (thing.observed["unreachable"]) throw new UnreachableHostError(`${thing.id}: its agent does not answer`);
    if (thing.observed["foreign"]) throw new ForeignHostError(`${thing.id}: another host answers`);
  }

  private withPorts(spec: VirtualMachineSpec): VirtualMachineSpec {
    return {
      ...spec,
      publishedPorts: spec.publishedPorts.map((port) => ({ ...port, hostPort: port.hostPort || 30000 + port.port })),
    };
  }

  private disk(thing: Thing<StateDiskSpec>): StateDiskObserved {
    return { id: thing.id, sizeGiB: thing.spec.sizeGiB, path: `/fake/${thing.id}.qcow2` };
  }

  private machine(thing: Thing<VirtualMachineSpec>): VirtualMachineObserved {
    const stopped = (thing.observed["powerState"] ?? thing.spec.powerState) === "stopped";
    const connection: HostConnection = {
      hostId: hostIdOf(this.world, thing),
      endpoint: `https://127.0.0.1:8443/${thing.id}`,
      certificateAuthority: hostAuthority,
      clientCertificateFile: thing.spec.clientIdentity.certificateFile,
      clientKeyFile: thing.spec.clientIdentity.keyFile,
      loopbackAddress: "10.0.2.2",
      publishedPorts: thing.spec.publishedPorts.map(({ port, protocol, hostAddress, hostPort }) => ({
        port,
        protocol,
        address: joined(hostAddress, hostPort),
      })),
    };
    return {
      ...thing.spec,
      id: thing.id,
      powerState: stopped ? "stopped" : "running",
      accelerator: "tcg",
      serialLog: `/fake/${thing.id}/serial.log`,
      bootSeconds: 1,
      connection,
      expectedIntegrity,
      ...(stopped
        ? {}
        : {
            integrity: factsOfMachine(thing),
          }),
    };
  }
}

class FakeRegistries implements RegistryService {
  constructor(private readonly world: World) {}

  async createRegistry(op: Operation, spec: RegistrySpec): Promise<RegistryObserved> {
    const thing = await make(this.world, "registries", "registry", op, spec, ["registry-started"]);
    thing.observed["password"] ??= randomBytes(12).toString("hex");
    this.world.put("registries", thing);
    return registryOf(thing);
  }

  async readRegistry(id: string): Promise<RegistryObserved | undefined> {
    const thing = this.world.get<RegistrySpec>("registries", id);
    return thing && registryOf(thing);
  }

  async findRegistry(server: string): Promise<RegistryObserved | undefined> {
    const all = this.world.list<RegistrySpec>("registries").map((thing) => registryOf(thing));
    return all.find((registry) => registry.server === server);
  }

  async updateRegistry(_op: Operation, id: string, spec: RegistrySpec): Promise<RegistryObserved> {
    const thing = existing<RegistrySpec>(this.world, "registries", id);
    thing.spec = spec;
    delete thing.observed["powerState"];
    this.world.put("registries", thing);
    return registryOf(thing);
  }

  async deleteRegistry(_op: Operation, id: string): Promise<void> {
    this.world.remove("registries", id);
  }
}

class FakeHostImages implements HostImageStore {
  constructor(private readonly world: World) {}

  async inputsHash(spec: HostImageBuildSpec): Promise<string> {
    return digestOf(spec).slice("sha256:".length);
  }

  async build(op: Operation, spec: HostImageBuildSpec): Promise<HostImageObserved> {
    await make(this.world, "host-images", "host-image", op, spec, ["image-built"]);
    return this.image(spec);
  }

  async read(digest: string): Promise<HostImageObserved | undefined> {
    return this.world
      .list<HostImageBuildSpec>("host-images")
      .map((thing) => this.image(thing.spec))
      .find((image) => image.digest === digest);
  }

  async findBuilt(inputsHash: string): Promise<HostImageObserved | undefined> {
    return this.read(`sha256:${inputsHash}`);
  }

  async release(): Promise<void> {}

  private image(spec: HostImageBuildSpec): HostImageObserved {
    const digest = digestOf(spec);
    return {
      digest,
      directory: `/fake/images/${digest}`,
      rootHash: expectedIntegrity.rootHash,
      ipePolicy: "palisade 0.0.1",
      mode: spec.mode,
      trustedCertificates: ["11".repeat(32)],
      builtFrom: { build: spec, inputsHash: digest.slice("sha256:".length) },
    };
  }
}

class FakeAgents implements Agents {
  constructor(
    private readonly world: World,
    private readonly hypervisor: FakeHypervisor,
  ) {}

  connect(connection: HostConnection): AgentClient {
    return new FakeAgent(this.world, connection);
  }

  async find(hostId: string): Promise<HostConnection | undefined> {
    for (const machine of this.world.list<VirtualMachineSpec>("virtual-machines")) {
      const observed = await this.hypervisor.readVirtualMachine(machine.id);
      if (observed?.connection?.hostId === hostId) return observed.connection;
    }
    return undefined;
  }

  /** A machine with `bootPolls` boots until its boot was polled that often. */
  async boot(hostId: string): Promise<BootProgress | undefined> {
    const disk = this.world.list<StateDiskSpec>("state-disks").find(({ observed }) => observed["hostId"] === hostId);
    const machine = this.world
      .list<VirtualMachineSpec>("virtual-machines")
      .find(({ spec }) => spec.stateDiskId === disk?.id);
    const polls = Number(machine?.observed["bootPolls"] ?? 0);
    if (!machine || polls === 0) return undefined;
    this.world.put("virtual-machines", { ...machine, observed: { ...machine.observed, bootPolls: polls - 1 } });
    return { phase: "kernel", seconds: 10 - polls, patience: 60_000 };
  }

  async isStopped(hostId: string): Promise<boolean> {
    for (const machine of this.world.list<VirtualMachineSpec>("virtual-machines")) {
      const observed = await this.hypervisor.readVirtualMachine(machine.id);
      if (observed?.connection?.hostId === hostId) return observed.powerState === "stopped";
    }
    return this.world.list("state-disks").some(({ observed }) => observed["hostId"] === hostId);
  }

  async removeAtStart(hostId: string, thing: HostedThing): Promise<boolean> {
    if (!(await this.isStopped(hostId))) return false;
    const disk = this.world.list("state-disks").find(({ observed }) => observed["hostId"] === hostId)!;
    const { removals = [] } = disk.observed as { removals?: HostedThing[] };
    this.world.put("state-disks", { ...disk, observed: { ...disk.observed, removals: [...removals, thing] } });
    return true;
  }
}

/** The backends of a World. Every hypervisor URI that the resources accept is the same hypervisor. */
export function createFakeBackends(world: World): Backends {
  const hypervisor = new FakeHypervisor(world);
  const registries = new FakeRegistries(world);
  return {
    hypervisor: () => hypervisor,
    registries,
    images: new FakeImages(world),
    sealer: new FakeSealer(world),
    patcher: new FakePatcher(world),
    channels: new FakeChannels(world),
    hostImages: new FakeHostImages(world),
    agents: new FakeAgents(world, hypervisor),
  };
}
