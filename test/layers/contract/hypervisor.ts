/**
 * The contract of Hypervisor and of Agents as far as machines go. One machine is booted; the tests go on from each
 * other.
 */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { randomBytes } from "node:crypto";
import { existsSync, readdirSync, readFileSync } from "node:fs";
import path from "node:path";
import { create, toJsonString } from "@bufbuild/protobuf";
import type {
  AgentClient,
  Hypervisor,
  StateDiskObserved,
  VirtualMachineObserved,
  VirtualMachineSpec,
} from "../../../provider/backends/index.js";
import { ContainerPhase, GroupSchema, GroupSpecSchema } from "../../../hosts/api/gen/palisade/agent/v1/agent_pb.js";
import { ImagePolicySchema } from "../../../hosts/api/gen/palisade/agent/v1/images_pb.js";
import { operation, type MakeSubject, type Subject } from "./subject.js";

export function hypervisorContract(implementation: string, make: MakeSubject): void {
  describe(`hypervisor: ${implementation}`, () => {
    let subject: Subject;
    let dispose: () => Promise<void>;
    let hypervisor: Hypervisor;
    let disk: StateDiskObserved;
    let machine: VirtualMachineObserved;
    let spec: VirtualMachineSpec;

    beforeAll(async () => {
      ({ subject, dispose } = await make());
      hypervisor = subject.backends.hypervisor("local");
    });
    afterAll(async () => dispose?.());

    /** Calls the machine's agent. */
    const onHost = async <T>(use: (client: AgentClient) => Promise<T>): Promise<T> => {
      const client = subject.backends.agents.connect(machine.connection!);
      try {
        return await use(client);
      } finally {
        client.close();
      }
    };

    it("makes one disk per owner, however often it is called, and finishes one that was begun", async () => {
      await expect(hypervisor.createStateDisk(operation("disk", "marker-written"), { sizeGiB: 4 })).rejects.toThrow();
      disk = await hypervisor.createStateDisk(operation("disk"), { sizeGiB: 4 });
      const again = await hypervisor.createStateDisk(operation("disk"), { sizeGiB: 4 });
      const other = await hypervisor.createStateDisk(operation("other disk"), { sizeGiB: 1 });
      expect(again).toEqual(disk);
      expect(other.id).not.toBe(disk.id);
      await hypervisor.deleteStateDisk(operation("other disk"), other.id);
      expect(await hypervisor.readStateDisk(other.id)).toBeUndefined();
      expect(await hypervisor.readStateDisk(disk.id)).toEqual(disk);
    });

    it("grows a disk that no machine uses", async () => {
      disk = await hypervisor.resizeStateDisk(operation("disk"), disk.id, 5);
      expect(disk.sizeGiB).toBe(5);
      expect((await hypervisor.readStateDisk(disk.id))?.sizeGiB).toBe(5);
    });

    it("brings a machine up, also after calls that were cancelled half-way, and only once", async () => {
      spec = {
        imageDigest: subject.imageDigest,
        stateDiskId: disk.id,
        cpus: 2,
        memoryMiB: 2048,
        publishedPorts: [{ port: 8080, protocol: "TCP", hostAddress: "127.0.0.1", hostPort: 0 }],
        certificateAuthority: subject.certificateAuthority,
        clientIdentity: subject.clientIdentity,
        acceleration: "auto",
        powerState: "running",
      };
      for (const checkpoint of ["marker-written", "tpm-started", "qemu-started"]) {
        await expect(hypervisor.createVirtualMachine(operation("machine", checkpoint), spec)).rejects.toThrow();
      }
      const op = operation("machine");
      machine = await hypervisor.createVirtualMachine(op, spec);
      expect(machine.powerState).toBe("running");
      expect(machine.connection?.hostId).toBeTruthy();
      expect(machine.publishedPorts[0]?.hostPort).toBeGreaterThan(0);
      expect(machine.integrity?.secureBoot).toBe(true);
      expect(op.checkpoints).toContain("booted");
      expect(op.checkpoints.at(-1)).toBe("enrolled");

      const again = await hypervisor.createVirtualMachine(operation("machine"), spec);
      expect({ ...again, bootSeconds: 0 }).toEqual({ ...machine, bootSeconds: 0 });
    });

    it("reads what it made", async () => {
      const read = await hypervisor.readVirtualMachine(machine.id);
      expect({ ...read, bootSeconds: 0 }).toEqual({ ...machine, bootSeconds: 0 });
    });

    it("finds the host by its id and reaches its agent", async () => {
      const hostId = machine.connection!.hostId;
      const connection = await subject.backends.agents.find(hostId);
      expect(connection).toEqual(machine.connection);
      expect(await subject.backends.agents.find("host-0000000000000000")).toBeUndefined();
      expect(await subject.backends.agents.isStopped(hostId)).toBe(false);
      const client = subject.backends.agents.connect(connection!);
      try {
        expect((await client.getHost()).hostId).toBe(hostId);
        expect(await client.getGroup("absent")).toBeUndefined();
      } finally {
        client.close();
      }
    });

    it("keeps a group's secrets out of console, logs, arguments and environments, also when it cannot start", async () => {
      const canaries = ["environment", "password"].map((name) => `canary-${name}-${randomBytes(8).toString("hex")}`);
      const server = "127.0.0.1:1";
      const spec = create(GroupSpecSchema, {
        name: "canary",
        containers: [
          {
            ...{ name: "web", image: `${server}/web@sha256:${"0".repeat(64)}` },
            environment: [{ name: "TOKEN", secure: true, secureValue: canaries[0] }],
            resources: { cpuRequest: 0.1, cpuLimit: 0.1, memoryRequestBytes: 2n ** 26n, memoryLimitBytes: 2n ** 26n },
          },
        ],
        imageRegistries: [{ server, username: "palisade", password: canaries[1] }],
      });
      await onHost(async (client) => {
        await client.applyGroup(spec);
        const hasStarted = async () => {
          const [container] = (await client.getGroup("canary"))?.status?.containers ?? [];
          return container && (container.reason !== "" || container.phase === ContainerPhase.RUNNING);
        };
        await expect.poll(hasStarted, { timeout: 120_000, interval: 1000 }).toBe(true);
        const reported = toJsonString(GroupSchema, (await client.getGroup("canary"))!);
        for (const canary of canaries) expect(reported).not.toContain(canary);
        await client.deleteGroup("canary");
      });
      const places = [...filesOf(path.dirname(machine.serialLog)), ...processes()];
      // Control: what is no secret is found.
      const shown = (text: string) => places.filter((place) => read(place).includes(text));
      if (existsSync(machine.serialLog)) expect(shown(machine.id)).not.toEqual([]);
      for (const canary of canaries) expect(shown(canary)).toEqual([]);
    });

    it("refuses to delete a disk that a machine uses", async () => {
      await expect(hypervisor.deleteStateDisk(operation("disk"), disk.id)).rejects.toThrow(machine.id);
    });

    it("grows the disk of a running machine", async () => {
      expect((await hypervisor.resizeStateDisk(operation("disk"), disk.id, 6)).sizeGiB).toBe(6);
      expect((await hypervisor.readStateDisk(disk.id))?.sizeGiB).toBe(6);
    });

    it("changes published ports of the running machine; kept ones keep their number", async () => {
      const [kept] = machine.publishedPorts;
      spec.publishedPorts = [...spec.publishedPorts, { ...spec.publishedPorts[0]!, port: 8081 }];
      const updated = await hypervisor.updateVirtualMachine(operation("machine"), machine.id, {
        ...spec,
        publishedPorts: [kept!, spec.publishedPorts[1]!],
      });
      expect(updated.publishedPorts[0]).toEqual(kept);
      expect(updated.publishedPorts[1]!.hostPort).toBeGreaterThan(0);
      expect(updated.publishedPorts[1]!.hostPort).not.toBe(kept!.hostPort);
      expect(updated.connection!.publishedPorts).toHaveLength(2);
      machine = updated;
      spec.publishedPorts = updated.publishedPorts;
    });

    it("says that an agent is unreachable, and deletes no such host without force", async () => {
      const restore = await subject.silence(machine.id);
      try {
        await expect(hypervisor.readVirtualMachine(machine.id)).rejects.toMatchObject({ name: "UnreachableHostError" });
        await expect(hypervisor.deleteVirtualMachine(operation("machine"), machine.id, false)).rejects.toMatchObject({
          name: "UnreachableHostError",
        });
      } finally {
        await restore();
      }
      expect((await hypervisor.readVirtualMachine(machine.id))?.powerState).toBe("running");
    });

    it("sees that a machine has crashed, and starts it again with other resources as the same host, without what it was to lose", async () => {
      const { agents } = subject.backends;
      const { hostId } = machine.connection!;
      const policies = ["kept", "taken"].map((name) =>
        create(ImagePolicySchema, { name, repositories: ["r.example/*"] }),
      );
      for (const policy of policies) await onHost((client) => client.applyImagePolicy(policy));
      const taken = { kind: "image policy", name: "taken" } as const;
      expect(await agents.removeAtStart(hostId, taken), "a host that runs is asked itself").toBe(false);
      await subject.crash(machine.id);
      expect((await hypervisor.readVirtualMachine(machine.id))?.powerState).toBe("stopped");
      expect(await agents.isStopped(hostId)).toBe(true);
      expect(await agents.removeAtStart(hostId, taken)).toBe(true);
      const repaired = await hypervisor.updateVirtualMachine(operation("machine"), machine.id, {
        ...spec,
        memoryMiB: 1792,
      });
      expect(repaired.powerState).toBe("running");
      expect(repaired.memoryMiB).toBe(1792);
      expect(repaired.connection).toEqual(machine.connection);
      const left = await Promise.all(policies.map(({ name }) => onHost((client) => client.getImagePolicy(name))));
      expect(left.map((policy) => policy?.name)).toEqual(["kept", undefined]);
    });

    it("deletes the machine, then the disk, twice without harm", async () => {
      for (let time = 0; time < 2; time++) {
        await hypervisor.deleteVirtualMachine(operation("machine"), machine.id, false);
        expect(await hypervisor.readVirtualMachine(machine.id)).toBeUndefined();
      }
      const { hostId } = machine.connection!;
      expect(await subject.backends.agents.isStopped(hostId), "its disk is left and has no machine").toBe(true);
      for (let time = 0; time < 2; time++) {
        await hypervisor.deleteStateDisk(operation("disk"), disk.id);
        expect(await hypervisor.readStateDisk(disk.id)).toBeUndefined();
      }
      expect(await subject.backends.agents.isStopped(hostId), "nothing is known of it any more").toBe(false);
    });
  });
}

/** Regular files of a folder, if it is there: sockets have no content. */
function filesOf(folder: string): string[] {
  if (!existsSync(folder)) return [];
  return readdirSync(folder, { withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map(({ name }) => path.join(folder, name));
}

/** Arguments and environments of all processes of this machine. */
function processes(): string[] {
  const pids = readdirSync("/proc").filter((name) => /^\d+$/.test(name));
  return pids.flatMap((pid) => ["cmdline", "environ"].map((file) => `/proc/${pid}/${file}`));
}

function read(file: string): string {
  try {
    return readFileSync(file, "latin1");
  } catch {
    // The process is gone.
    return "";
  }
}
