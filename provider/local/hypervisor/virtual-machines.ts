/** Virtual machines that run hosts: created, converged to the desired state, observed, ended. */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { HostAgentClient } from "../agent-client/client.js";
import type { HostDirectory, KnownHost, StoppedHost } from "../agent-client/local-agents.js";
import { convergeHost } from "../agent-client/renewal.js";
import { discoverIdentity } from "../agent-client/transport.js";
import {
  describeDifference,
  factsOf,
  ForeignHostError,
  integrityDifferences,
  removeHosted,
  UnreachableHostError,
  type BootProgress,
  type ExpectedIntegrity,
  type HostedThing,
  type IntegrityFacts,
  type Operation,
  type VirtualMachineObserved,
  type VirtualMachineSpec,
} from "../../backends/index.js";
import { readAuthority, type Authority } from "../certificates/authority.js";
import { CertificateRefusedError } from "../certificates/host-certificate.js";
import { recordProvenIdentity, type IdentityRecord } from "../certificates/host-identity.js";
import { describe, expectedIntegrity, imageDirectory } from "../host-images/store.js";
import { idFor, processOf } from "../../system/marker.js";
import { PortReservations } from "../../system/ports.js";
import { ageSeconds } from "../../system/process.js";
import { isAlive } from "../../../shared/process-identity.js";
import { textFrom } from "../../system/tail.js";
import { sleep } from "../../../shared/sleep.js";
import { within } from "../../system/time.js";
import { requirePrograms } from "../../system/programs.js";
import { phaseOf } from "./boot-phases.js";
import { bootPatience, StalledBootError, untilReady } from "./boot.js";
import { EnrollmentServer } from "./enrollment.js";
import { IdentityRecords } from "./identity-records.js";
import type { HypervisorMarkers, VirtualMachineMarker } from "./markers.js";
import { connectionOf, observedMachine } from "./observation.js";
import { agentForward, reservePorts } from "./ports.js";
import { firmware, Power } from "./power.js";
import { Templates, type Template } from "./templates.js";
import { AcceleratorChoice, type Accelerator } from "./qemu/accelerator.js";
import { changeForwards } from "./qemu/forwards.js";
import { connectUnix } from "./qemu/unix-socket.js";

/** How often a boot that shows no sign of life is started again: emulated guests hang now and then. */
const bootAttempts = 3;
/** Quiet consoles of emulated machines stay silent for most of a boot. */
const stallMilliseconds: Record<Accelerator, number> = { kvm: 60_000, tcg: 240_000 };
/** Statuses of QEMU with a guest that runs or soon will. */
const liveStatuses = new Set(["running", "paused", "prelaunch", "inmigrate", "suspended", "debug", "save-vm"]);

/** How much of the end of the console is read to find the phase of a boot. */
const consoleBytes = 4096;

/** While a host boots, an answer comes soon, or never on this connection. */
const askMilliseconds = 3000;

export class VirtualMachines implements HostDirectory {
  private readonly power: Power;
  private readonly reservations: PortReservations;
  private readonly accelerators: AcceleratorChoice;
  private readonly templates: Templates;
  private readonly identities: IdentityRecords;

  constructor(
    private readonly markers: HypervisorMarkers,
    cacheDirectory: string,
  ) {
    this.power = new Power(markers);
    this.reservations = new PortReservations(join(markers.stateDirectory, "ports"));
    this.accelerators = new AcceleratorChoice(join(cacheDirectory, "accelerator.json"));
    this.templates = new Templates(markers.stateDirectory, cacheDirectory);
    this.identities = new IdentityRecords(markers);
  }

  async create(op: Operation, spec: VirtualMachineSpec): Promise<VirtualMachineObserved> {
    await requirePrograms("a virtual machine", ["qemu-system-x86_64", "swtpm", firmware]);
    const { machines, disks } = this.markers;
    const id = idFor(machines.prefix, op.owner);
    return within(op, id, (signal) =>
      machines.locked(id, signal, async () => {
        // The disk's lock keeps two machines from taking the same disk, and the disk from being deleted meanwhile.
        const marker = await disks.locked(spec.stateDiskId, signal, async () => {
          await this.requirePrerequisites(spec, id);
          return machines.adoptOrCreate(op.owner, spec, { ports: [] });
        });
        await op.checkpoint("marker-written");
        return this.converge(op, marker, spec, signal);
      }),
    );
  }

  async update(op: Operation, id: string, spec: VirtualMachineSpec): Promise<VirtualMachineObserved> {
    return within(op, id, (signal) =>
      this.markers.machines.locked(id, signal, async () => {
        const marker = await this.markers.machines.existing(id);
        for (const property of ["imageDigest", "stateDiskId"] as const) {
          if (marker.spec[property] === spec[property]) continue;
          throw new Error(`${property}: ${marker.spec[property]} cannot become ${spec[property]}; replace the machine`);
        }
        await this.requirePrerequisites(spec, id);
        return this.converge(op, marker, spec, signal);
      }),
    );
  }

  async read(id: string): Promise<VirtualMachineObserved | undefined> {
    const marker = await this.markers.machines.read(id);
    return marker && this.observe(marker);
  }

  async delete(op: Operation, id: string, force: boolean): Promise<void> {
    await within(op, id, (signal) =>
      this.markers.machines.locked(id, signal, async () => {
        const { machines } = this.markers;
        const marker = await machines.read(id);
        if (!marker) return;
        const client = await this.client(marker);
        try {
          const running = await this.power.isRunning(marker);
          // A machine that never became a host has no agent to ask.
          if (running && client && !force) await client.getHost();
          await this.power.stop(op, marker, signal, client && (() => client.powerOff()));
        } finally {
          client?.close();
        }
        await this.reservations.releaseAll(machines.folder(id));
        await machines.remove(id);
      }),
    );
  }

  /** Whether any machine of this computer boots from an image. */
  async usesImage(digest: string): Promise<boolean> {
    return (await this.markers.machines.list()).some((marker) => marker.spec.imageDigest === digest);
  }

  async findHost(hostId: string): Promise<KnownHost | undefined> {
    const marker = (await this.markers.machines.list()).find((machine) => machine.details.hostId === hostId);
    const connection = marker && (await connectionOf(marker));
    if (!connection) return undefined;
    const { certificateAuthority } = marker.spec;
    return {
      connection,
      certificateAuthority,
      identityRecord: this.recordOf(marker),
      powerState: () => this.powerState(marker),
      boot: () => this.bootProgress(marker),
      removeAtStart: (thing) => this.changeRemovals(marker.spec.stateDiskId, (due) => [...due, thing]),
      reenroll: () => this.reenroll(marker),
    };
  }

  async findDetached(hostId: string): Promise<StoppedHost | undefined> {
    const disk = (await this.markers.disks.list()).find(({ details }) => details.hostId === hostId);
    if (!disk || (await this.markers.userOfDisk(disk.id))) return undefined;
    return { removeAtStart: (thing) => this.changeRemovals(disk.id, (due) => [...due, thing]) };
  }

  metalIdentityRecord(hostId: string): IdentityRecord {
    return this.identities.ofMetalHost(hostId);
  }

  /** Checks that image, disk and authority exist and that the disk is free; errors name the property. */
  private async requirePrerequisites(spec: VirtualMachineSpec, id: string): Promise<void> {
    const directory = imageDirectory(this.markers.stateDirectory, spec.imageDigest);
    if (!(await describe(directory))) {
      throw new Error(
        `imageDigest: ${spec.imageDigest} is not in the image store (${directory}); build or import the image`,
      );
    }
    if (!(await this.markers.disks.read(spec.stateDiskId))) {
      throw new Error(`stateDiskId: there is no state disk ${spec.stateDiskId} on this machine`);
    }
    const user = (await this.markers.machines.list()).find(
      (machine) => machine.id !== id && machine.spec.stateDiskId === spec.stateDiskId,
    );
    if (user) throw new Error(`stateDiskId: ${spec.stateDiskId} is attached to ${user.id} already`);
    await readAuthority(spec.certificateAuthority);
  }

  /** Converges the machine to its specification from any state. The caller holds its lock. */
  private async converge(
    op: Operation,
    marker: VirtualMachineMarker,
    spec: VirtualMachineSpec,
    signal: AbortSignal,
  ): Promise<VirtualMachineObserved> {
    const folder = this.markers.machines.folder(marker.id);
    const oldPorts = marker.details.ports;
    const ports = await reservePorts(this.reservations, folder, marker, spec.publishedPorts, signal);
    const { accelerator, reason } = await this.accelerators.choose(spec.acceleration, signal);
    // Known from the disk, when the host had another machine before.
    const disk = await this.markers.disks.existing(spec.stateDiskId);
    marker.details.hostId = disk.details.hostId;
    if (marker.details.hostId === undefined) delete marker.details.hostId;
    await this.wake(marker);

    const { started } = marker.details;
    const fits =
      started !== undefined &&
      started.cpus === spec.cpus &&
      started.memoryMiB === spec.memoryMiB &&
      started.imageDigest === spec.imageDigest &&
      started.stateDiskId === spec.stateDiskId &&
      (started.accelerator === accelerator || spec.acceleration === "auto");
    if ((await this.power.isRunning(marker)) && (!fits || spec.powerState === "stopped"))
      await this.shutDown(op, marker, signal);

    if (await this.power.isRunning(marker)) {
      await this.power.monitor(marker, (qmp) => changeForwards(qmp, [agentForward(marker), ...ports]));
    }
    marker.spec = spec;
    marker.details.ports = ports;
    await this.markers.machines.write(marker);
    for (const old of oldPorts) {
      const kept = ports.some((port) => port.protocol === old.protocol && port.hostPort === old.hostPort);
      if (!kept) await this.reservations.release(folder, old.protocol, old.hostPort);
    }
    if (spec.powerState === "running") {
      if (reason && !(await this.power.isRunning(marker))) op.log("info", `${marker.id}: ${reason}`);
      return this.bootAsDeclared(op, marker, accelerator, signal);
    }
    return this.observe(marker);
  }

  /**
   * Boots the machine unless it runs, and compares what its host reports with its image. A host that differs is
   * restarted once, with the firmware variables that come with the image: a boot entry that was set in the machine's
   * own ones is gone then.
   */
  private async bootAsDeclared(
    op: Operation,
    marker: VirtualMachineMarker,
    accelerator: Accelerator,
    signal: AbortSignal,
  ): Promise<VirtualMachineObserved> {
    const hadVariables = marker.details.variablesOf === marker.spec.imageDigest;
    await this.boot(op, marker, accelerator, signal);
    const observed = await this.observe(marker);
    const differences = integrityDifferences(observed.expectedIntegrity, observed.integrity);
    // Variables that were new at this start are no reason for a difference.
    if (differences.length === 0 || !hadVariables) return observed;
    op.log(
      "warning",
      `${marker.id}: the host is not as its image says: ${differences.map(describeDifference).join("; ")}\n` +
        "Restarting it with the image's own firmware variables",
    );
    await this.shutDown(op, marker, signal);
    delete marker.details.variablesOf;
    await this.markers.machines.write(marker);
    await this.boot(op, marker, accelerator, signal);
    return this.observe(marker);
  }

  /** Resumes a paused guest, and ends the QEMU of a guest that has crashed or shut down. */
  private async wake(marker: VirtualMachineMarker): Promise<void> {
    if (!(await this.power.isRunning(marker))) return;
    if (marker.details.unreleased) return this.power.kill(marker);
    const status = await this.status(marker).catch(() => undefined);
    // A monitor that another client holds looks like a QEMU that hangs; in the first case the guest still answers.
    if (status === undefined && (await this.answers(marker))) {
      throw new Error(
        `${marker.id}: QEMU's monitor does not answer though the host does; end other clients of the monitor`,
      );
    }
    if (status === "paused") await this.power.monitor(marker, (qmp) => qmp.execute("cont"));
    else if (status === undefined || !liveStatuses.has(status)) await this.power.kill(marker);
  }

  private async answers(marker: VirtualMachineMarker): Promise<boolean> {
    const client = await this.client(marker);
    try {
      return (await client?.getHost(askMilliseconds)) !== undefined;
    } catch {
      return false;
    } finally {
      client?.close();
    }
  }

  private async powerState(marker: VirtualMachineMarker): Promise<"running" | "stopped"> {
    if (!(await this.power.isRunning(marker))) return "stopped";
    const status = await this.status(marker).catch((error: Error) => {
      throw new UnreachableHostError(`${marker.id}: QEMU runs and does not answer: ${error.message}`, { cause: error });
    });
    return liveStatuses.has(status) && status !== "paused" ? "running" : "stopped";
  }

  private async status(marker: VirtualMachineMarker): Promise<string> {
    const answer = await this.power.monitor(marker, (qmp) => qmp.execute<{ status: string }>("query-status"));
    return answer.status;
  }

  private async shutDown(op: Operation, marker: VirtualMachineMarker, signal: AbortSignal): Promise<void> {
    const client = await this.client(marker);
    try {
      await this.power.stop(op, marker, signal, client && (() => client.powerOff()));
    } finally {
      client?.close();
    }
  }

  /** Starts the machine unless it runs, and waits for the agent. */
  private async boot(
    op: Operation,
    marker: VirtualMachineMarker,
    accelerator: Accelerator,
    signal: AbortSignal,
  ): Promise<void> {
    const authority = await readAuthority(marker.spec.certificateAuthority);
    let template = await this.template(op, marker, accelerator, signal);
    for (let attempt = 1; ; attempt++) {
      const serialLog = this.power.file(marker, "serialLog");
      const begin = Date.now();
      let serialOffset = 0;
      const starts = !(await this.power.isRunning(marker));
      if (starts) {
        serialOffset = (await textFrom(serialLog, 0, 0)).size;
        op.status(template ? "resuming a template" : `starting the machine under ${accelerator.toUpperCase()}`);
      }
      try {
        if (starts) await this.power.start(op, marker, accelerator, signal, template);
        await this.watch(op, marker, authority, serialOffset, accelerator, signal);
      } catch (error) {
        const isRepairable = error instanceof StalledBootError || (template !== undefined && !signal.aborted);
        if (!isRepairable || attempt === bootAttempts) throw error;
        op.log("warning", `${(error as Error).message}\nStarting it again (${attempt} of ${bootAttempts - 1})`);
        await this.power.kill(marker);
        template = undefined;
        continue;
      }
      if (starts) marker.details.bootSeconds = Math.round((Date.now() - begin) / 100) / 10;
      const qemu = processOf(marker, "qemu");
      if (qemu) marker.details.booted = qemu;
      await this.markers.machines.write(marker);
      await this.removeWhatIsDue(op, marker);
      return;
    }
  }

  /** Removes from the host what was deleted while it was stopped: that is still on its disk. */
  private async removeWhatIsDue(op: Operation, marker: VirtualMachineMarker): Promise<void> {
    const { removals = [] } = (await this.markers.disks.existing(marker.spec.stateDiskId)).details;
    if (removals.length === 0) return;
    const client = await this.client(marker);
    if (!client) return;
    try {
      for (const thing of removals) {
        op.status(`removing the ${`${thing.kind} ${thing.name}`.trim()}`);
        await removeHosted(client, thing);
      }
    } finally {
      client.close();
    }
    await this.changeRemovals(marker.spec.stateDiskId, () => []);
  }

  private async changeRemovals(id: string, change: (due: HostedThing[]) => HostedThing[]): Promise<void> {
    const { disks } = this.markers;
    await disks.locked(id, undefined, async () => {
      const disk = await disks.existing(id);
      const due = change(disk.details.removals ?? []);
      if (due.length > 0) disk.details.removals = due;
      else delete disk.details.removals;
      await disks.write(disk);
    });
  }

  /** The template that the machine resumes; undefined when it has to boot. A template that fails is logged. */
  private async template(
    op: Operation,
    marker: VirtualMachineMarker,
    accelerator: Accelerator,
    signal: AbortSignal,
  ): Promise<Template | undefined> {
    const { spec, details } = marker;
    if (spec.snapshot !== "template" || (await this.power.isRunning(marker))) return undefined;
    // A host with an identity, and data, boots: it is no clone.
    if (details.hostId !== undefined) return undefined;
    const { imageDigest, cpus, memoryMiB } = spec;
    const stateDiskGiB = (await this.markers.disks.existing(spec.stateDiskId)).spec.sizeGiB;
    const shape = { imageDigest, cpus, memoryMiB, stateDiskGiB, accelerator };
    try {
      return await this.templates.prepare(op, shape, stallMilliseconds[accelerator], signal);
    } catch (error) {
      signal.throwIfAborted();
      op.log("warning", `snapshot: there is no template to resume, the host boots: ${(error as Error).message}`);
      return undefined;
    }
  }

  private async watch(
    op: Operation,
    marker: VirtualMachineMarker,
    authority: Authority,
    serialOffset: number,
    accelerator: Accelerator,
    signal: AbortSignal,
  ): Promise<void> {
    let client: HostAgentClient | undefined;
    let booted = false;
    const onBooted = async () => {
      if (!booted) await op.checkpoint("booted");
      booted = true;
    };
    let refusal = "";
    const refuse = (reason: string) => {
      // A host repeats its request every two seconds.
      if (reason !== refusal) op.log("warning", `${marker.id}: ${reason}`);
      refusal = reason;
    };
    const record = this.recordOf(marker);
    try {
      const host = await untilReady(
        op,
        {
          id: marker.id,
          serialLog: this.power.file(marker, "serialLog"),
          serialOffset,
          qemuLog: this.power.file(marker, "qemuLog"),
          enrollmentSocket: this.power.file(marker, "enrollment"),
          enrollment: {
            authority,
            record: {
              ...record,
              write: async (identity) => {
                await onBooted();
                await record.write(identity);
              },
            },
            refuse,
          },
          stallMilliseconds: stallMilliseconds[accelerator],
          isRunning: () => this.power.isRunning(marker),
          askAgent: async () => {
            if (marker.details.hostId === undefined) await this.discover(marker, authority, signal);
            // A client that does not re-enroll the host: the enrollment port is already in use here.
            const connection = await connectionOf(marker);
            client ??= connection && new HostAgentClient(connection);
            try {
              const host = await client?.getHost(askMilliseconds);
              if (host) await onBooted();
              return host;
            } catch (error) {
              // The user-mode network accepts connections before the guest does; such a connection never answers.
              client?.close();
              client = undefined;
              throw error;
            }
          },
        },
        signal,
      );
      await op.checkpoint("enrolled");
      if (client) {
        await convergeHost(client, host, marker.spec.certificateAuthority, record).catch((error: unknown) => {
          if (error instanceof CertificateRefusedError) refuse(error.message);
        });
      }
    } finally {
      client?.close();
    }
  }

  /** Asks the agent for its identity: a call that was killed before it recorded the identity left none here. */
  private async discover(marker: VirtualMachineMarker, authority: Authority, signal: AbortSignal): Promise<void> {
    const { hostAddress: host, hostPort: port } = agentForward(marker);
    const proven = await discoverIdentity({ host, port }, authority.certificate, marker.spec.clientIdentity, signal);
    if (!proven) return;
    try {
      await recordProvenIdentity(this.recordOf(marker), proven);
    } catch (error) {
      if (!(error instanceof CertificateRefusedError)) throw error;
      throw new ForeignHostError(`${marker.id}: another host answers: ${error.message}`, { cause: error });
    }
  }

  /** The record of the machine's host. The disk is written first, because the identity lies on the disk. */
  private recordOf(marker: VirtualMachineMarker): IdentityRecord {
    const record = this.identities.ofDisk(marker.spec.stateDiskId);
    return {
      ...record,
      write: async (identity) => {
        await record.write(identity);
        if (marker.details.hostId === identity.hostId) return;
        marker.details.hostId = identity.hostId;
        await this.markers.machines.write(marker);
      },
    };
  }

  /** Gives a host that asks for a certificate a new one; false when it does not ask within 20 s. */
  private async reenroll(marker: VirtualMachineMarker): Promise<boolean> {
    if (!(await this.power.isRunning(marker))) return false;
    const authority = await readAuthority(marker.spec.certificateAuthority);
    const socket = await connectUnix(this.power.file(marker, "enrollment"), 5000);
    const server = new EnrollmentServer(socket, { authority, record: this.recordOf(marker), refuse: () => undefined });
    try {
      return await Promise.race([server.enrolled.then(() => true), sleep(20_000).then(() => false)]);
    } finally {
      server.close();
    }
  }

  private async client(marker: VirtualMachineMarker): Promise<HostAgentClient | undefined> {
    const connection = await connectionOf(marker);
    if (!connection) return undefined;
    const { certificateAuthority } = marker.spec;
    return new HostAgentClient(connection, {
      authority: async () => certificateAuthority,
      renew: async (client, host) => {
        await convergeHost(client, host, certificateAuthority, this.recordOf(marker)).catch(() => undefined);
      },
      reenroll: () => this.reenroll(marker),
    });
  }

  private async observe(marker: VirtualMachineMarker): Promise<VirtualMachineObserved> {
    const serialLog = this.power.file(marker, "serialLog");
    const expected = await this.expectedIntegrity(marker);
    if (!(await this.power.isRunning(marker))) return observedMachine(marker, serialLog, expected, undefined);
    let size: { cpus: number; memoryMiB: number } | undefined;
    try {
      size = await this.power.monitor(marker, async (qmp) => {
        const { status } = await qmp.execute<{ status: string }>("query-status");
        if (!liveStatuses.has(status) || status === "paused") return undefined;
        const cpus = await qmp.execute<unknown[]>("query-cpus-fast");
        const memory = await qmp.execute<{ "base-memory": number }>("query-memory-size-summary");
        return { cpus: cpus.length, memoryMiB: memory["base-memory"] / 1024 ** 2 };
      });
    } catch (error) {
      throw new UnreachableHostError(`${marker.id}: QEMU runs and does not answer: ${(error as Error).message}`, {
        cause: error,
      });
    }
    if (!size) return observedMachine(marker, serialLog, expected, undefined);
    const integrity = await this.integrity(marker);
    return observedMachine(marker, serialLog, expected, { ...size, ...(integrity ? { integrity } : {}) });
  }

  private async expectedIntegrity(marker: VirtualMachineMarker): Promise<ExpectedIntegrity | undefined> {
    const description = await describe(imageDirectory(this.markers.stateDirectory, marker.spec.imageDigest));
    return description && expectedIntegrity(description);
  }

  /** Progress of a boot: after a start from here, or after a reboot from inside, which only the console shows. */
  private async bootProgress(marker: VirtualMachineMarker): Promise<BootProgress | undefined> {
    const qemu = processOf(marker, "qemu");
    if (!qemu || !(await isAlive(qemu))) return undefined;
    const serialLog = this.power.file(marker, "serialLog");
    const written = (await stat(serialLog).catch(() => undefined))?.mtimeMs ?? 0;
    const { booted, started } = marker.details;
    const patience = bootPatience({
      age: ageSeconds(qemu) * 1000,
      silence: Math.max(0, Date.now() - written),
      hasBooted: booted?.pid === qemu.pid && booted.startTime === qemu.startTime,
      stall: stallMilliseconds[started?.accelerator ?? "tcg"],
    });
    if (patience === 0) return undefined;
    const { text } = await textFrom(serialLog, 0, consoleBytes);
    return { phase: phaseOf(text) ?? "starting", seconds: Math.round(ageSeconds(qemu)), patience };
  }

  /** Facts from the agent. Waits for a host that is booting. */
  private async integrity(marker: VirtualMachineMarker): Promise<IntegrityFacts | undefined> {
    const client = await this.client(marker);
    if (!client) return undefined;
    const began = Date.now();
    try {
      for (;;) {
        try {
          const host = await client.getHost();
          return factsOf(await client.getIntegrity(), host.kernelVersion);
        } catch (error) {
          const boot = error instanceof UnreachableHostError ? await this.bootProgress(marker) : undefined;
          if (!boot || Date.now() - began >= boot.patience) throw error;
          await sleep(1000);
        }
      }
    } finally {
      client.close();
    }
  }
}
