/** Registries on this machine: Debian's docker-registry as a process of its own. */
import { stat } from "node:fs/promises";
import { join } from "node:path";
import { hostPort } from "../../../shared/host-port.js";
import type { Operation, RegistryObserved, RegistryService, RegistrySpec } from "../../backends/index.js";
import { MarkerStore, idFor, processOf, type Marker } from "../../system/marker.js";
import { PortReservations } from "../../system/ports.js";
import { spawnDetached, terminate } from "../../system/process.js";
import { isAlive } from "../../../shared/process-identity.js";
import { sleep } from "../../../shared/sleep.js";
import { within } from "../../system/time.js";
import { lastLines } from "../../system/tail.js";
import { requirePrograms } from "../../system/programs.js";
import { ping } from "./client.js";
import { ensureCredentials, readCredentials, registryUser, writeConfiguration } from "./configuration.js";

interface Details {
  /** The port in use; chosen once, kept for the registry's life. */
  port?: number;
}
type RegistryMarker = Marker<RegistrySpec, Details>;

const address = "127.0.0.1";
const processName = "docker-registry";

export class LocalRegistries implements RegistryService {
  private readonly markers: MarkerStore<RegistrySpec, Details>;
  private readonly ports: PortReservations;

  constructor(stateDirectory: string) {
    this.markers = new MarkerStore(join(stateDirectory, "registries"), "registry");
    this.ports = new PortReservations(join(stateDirectory, "ports"));
  }

  async createRegistry(op: Operation, spec: RegistrySpec): Promise<RegistryObserved> {
    await requirePrograms("a registry", [processName]);
    const id = idFor(this.markers.prefix, op.owner);
    return within(op, id, (signal) =>
      this.markers.locked(id, signal, async () => {
        const marker = await this.markers.adoptOrCreate(op.owner, spec, {});
        await op.checkpoint("marker-written");
        return this.converge(op, marker, spec, signal);
      }),
    );
  }

  async readRegistry(id: string): Promise<RegistryObserved | undefined> {
    const marker = await this.markers.read(id);
    if (!marker) return undefined;
    const credentials = await readCredentials(this.markers.folder(id));
    return {
      id,
      port: marker.spec.port,
      server: marker.details.port === undefined ? "" : hostPort(address, marker.details.port),
      username: registryUser,
      password: credentials?.password ?? "",
      ca: credentials?.ca ?? "",
      powerState: (await isAlive(processOf(marker, processName))) ? "running" : "stopped",
    };
  }

  async findRegistry(server: string): Promise<RegistryObserved | undefined> {
    for (const { id } of await this.markers.list()) {
      const registry = await this.readRegistry(id);
      if (registry?.server === server) return registry;
    }
    return undefined;
  }

  async updateRegistry(op: Operation, id: string, spec: RegistrySpec): Promise<RegistryObserved> {
    return within(op, id, (signal) =>
      this.markers.locked(id, signal, async () => this.converge(op, await this.markers.existing(id), spec, signal)),
    );
  }

  async deleteRegistry(op: Operation, id: string): Promise<void> {
    await within(op, id, (signal) =>
      this.markers.locked(id, signal, async () => {
        const marker = await this.markers.read(id);
        if (!marker) return;
        await terminate(processOf(marker, processName));
        await this.ports.releaseAll(this.markers.folder(id));
        await this.markers.remove(id);
      }),
    );
  }

  /** Converges the registry to its specification: starts it with the desired port, unless it runs there already. */
  private async converge(
    op: Operation,
    marker: RegistryMarker,
    spec: RegistrySpec,
    signal: AbortSignal,
  ): Promise<RegistryObserved> {
    const folder = this.markers.folder(marker.id);
    const old = marker.details.port;
    const port =
      old !== undefined && (spec.port === 0 || spec.port === old)
        ? old
        : await this.ports.reserve(folder, { protocol: "TCP", address, port: spec.port }, signal);
    const credentials = await ensureCredentials(folder, marker.id);
    const running = processOf(marker, processName);
    if (!(await isAlive(running)) || old !== port) {
      await terminate(running);
      marker.spec = spec;
      marker.details = { port };
      marker.processes = [];
      await this.markers.write(marker);
      if (old !== undefined && old !== port) await this.ports.release(folder, "TCP", old);
      op.status(`starting on ${hostPort(address, port)}`);
      const configuration = await writeConfiguration(folder, port);
      const identity = await spawnDetached({
        name: processName,
        file: "docker-registry",
        args: ["serve", configuration],
        directory: folder,
        logFile: join(folder, "registry.log"),
      });
      marker.processes = [identity];
      await this.markers.write(marker);
      await op.checkpoint("registry-started");
    } else if (marker.spec.port !== spec.port) {
      marker.spec = spec;
      await this.markers.write(marker);
    }
    await this.untilItAnswers(
      marker,
      { server: hostPort(address, port), username: registryUser, ...credentials },
      signal,
    );
    return (await this.readRegistry(marker.id))!;
  }

  private async untilItAnswers(
    marker: RegistryMarker,
    access: { server: string; username: string; password: string; ca: string },
    signal: AbortSignal,
  ): Promise<void> {
    const log = join(this.markers.folder(marker.id), "registry.log");
    const end = Date.now() + 30_000;
    let reason = "";
    for (;;) {
      try {
        if (await ping(access, signal)) return;
        reason = "it refuses its own credentials";
      } catch (error) {
        signal.throwIfAborted();
        reason = (error as Error).message;
      }
      if (!(await isAlive(processOf(marker, processName)))) reason = "its process ended";
      if (reason === "its process ended" || Date.now() > end) {
        const words = (await stat(log).catch(() => undefined)) ? await lastLines(log, 5) : "";
        throw new Error(`${marker.id}: the registry did not start: ${reason}; last lines of ${log}:\n${words}`);
      }
      await sleep(200, signal);
    }
  }
}
