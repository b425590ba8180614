/**
 * Ports of this machine, reserved as long as a thing uses them, so that no two concurrent runs choose the same port.
 */
import { createSocket } from "node:dgram";
import { mkdir, open, rm } from "node:fs/promises";
import { createServer } from "node:net";
import { join } from "node:path";
import * as v from "valibot";
import { decode, object } from "../../shared/decode.js";
import { readDirectoryIfPresent, readFileIfPresent } from "./atomic-file.js";
import { withLock } from "./lock.js";

export type Protocol = "TCP" | "UDP";

interface Reservation {
  port: number;
  protocol: Protocol;
  address: string;
  /** Folder of the thing that holds it; without a marker in that folder the reservation is stale. */
  holder: string;
}

const reservationSchema = object({ address: v.string(), holder: v.string() });

/** A port is in use or reserved by something else. */
export class PortTakenError extends Error {
  override readonly name = "PortTakenError";
}

/** Whether nothing on this machine listens there. */
export async function isFree(protocol: Protocol, address: string, port: number): Promise<boolean> {
  return new Promise((resolve) => {
    if (protocol === "UDP") {
      const socket = createSocket({ type: address.includes(":") ? "udp6" : "udp4" });
      socket.once("error", () => resolve(false));
      socket.bind({ port, address, exclusive: true }, () => socket.close(() => resolve(true)));
      return;
    }
    const server = createServer();
    server.once("error", () => resolve(false));
    server.listen({ port, host: address, exclusive: true }, () => server.close(() => resolve(true)));
  });
}

/** Reservations under one folder, shared by every stack of the machine. */
export class PortReservations {
  constructor(private readonly directory: string) {}

  /**
   * Reserves a port for the thing in the folder `holder`. A port that the same holder has reserved already is kept.
   *
   * @param port 0 chooses a free one of 20000 to 29999, below the kernel's range for outgoing connections.
   * @throws PortTakenError when it is reserved by a living thing or something listens there.
   */
  async reserve(
    holder: string,
    requested: { protocol: Protocol; address: string; port: number },
    signal?: AbortSignal,
  ): Promise<number> {
    await mkdir(this.directory, { recursive: true, mode: 0o700 });
    return withLock(join(this.directory, ".lock"), signal, async () => {
      const { protocol, address, port } = requested;
      if (port !== 0) {
        const taken = await this.take(holder, protocol, address, port);
        if (taken === true) return port;
        throw new PortTakenError(
          `port ${port}/${protocol} on ${address} is ${taken}; choose another one, or 0 to have one chosen`,
        );
      }
      for (let attempt = 0; attempt < 200; attempt++) {
        const candidate = 20_000 + Math.floor(Math.random() * 10_000);
        if ((await this.take(holder, protocol, address, candidate)) === true) return candidate;
      }
      throw new PortTakenError(`no free ${protocol} port between 20000 and 29999 was found on ${address}`);
    });
  }

  /** Releases one port of a holder. */
  async release(holder: string, protocol: Protocol, port: number): Promise<void> {
    if ((await this.read(protocol, port))?.holder === holder) await rm(this.path(protocol, port), { force: true });
  }

  /** Releases all ports of a holder. */
  async releaseAll(holder: string): Promise<void> {
    for (const reservation of await this.list()) {
      if (reservation.holder === holder) await rm(this.path(reservation.protocol, reservation.port), { force: true });
    }
  }

  /** Every reservation, stale ones included. */
  async list(): Promise<Reservation[]> {
    const found: Reservation[] = [];
    for (const name of await readDirectoryIfPresent(this.directory)) {
      const match = /^(tcp|udp)-(\d+)\.json$/.exec(name);
      const reservation = match && (await this.read(match[1] === "udp" ? "UDP" : "TCP", Number(match[2])));
      if (reservation) found.push(reservation);
    }
    return found;
  }

  private path(protocol: Protocol, port: number): string {
    return join(this.directory, `${protocol.toLowerCase()}-${port}.json`);
  }

  private async read(protocol: Protocol, port: number): Promise<Reservation | undefined> {
    const content = await readFileIfPresent(this.path(protocol, port));
    if (content === undefined) return undefined;
    try {
      return { port, protocol, ...decode(reservationSchema, content, this.path(protocol, port)) };
    } catch {
      // Partly written by a process that was killed: it reserves nothing.
      return { port, protocol, address: "", holder: "" };
    }
  }

  /** Takes the port and returns true, or returns the reason why it is not available. */
  private async take(holder: string, protocol: Protocol, address: string, port: number): Promise<true | string> {
    const present = await this.read(protocol, port);
    if (present?.holder === holder) return true;
    if (present && (await readFileIfPresent(join(present.holder, "marker.json"))) !== undefined) {
      return `reserved by ${present.holder}`;
    }
    if (present) await rm(this.path(protocol, port), { force: true });
    if (!(await isFree(protocol, address, port))) return "in use by another process";
    const file = await open(this.path(protocol, port), "wx", 0o600);
    try {
      await file.writeFile(JSON.stringify({ port, protocol, address, holder } satisfies Reservation));
      await file.sync();
    } finally {
      await file.close();
    }
    return true;
  }
}
