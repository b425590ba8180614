/** Agents of hosts, with care for the certificates of those that run on this machine, and of others whose authority is here. */
import type { AgentClient, Agents, HostConnection, HostedThing } from "../backends.js";
import { HostAgentClient } from "./client.js";
import { authorityBeside, renewIfDue } from "./renewal.js";

/** What is known of a host that runs on this machine. */
export interface KnownHost {
  connection: HostConnection;
  certificateAuthority: { certificateFile: string; keyFile: string };
  /** Whether its machine runs, as its hypervisor says. */
  powerState(): Promise<"running" | "stopped">;
  /** Notes what the host has to lose at its next start. */
  removeAtStart(thing: HostedThing): Promise<void>;
  /** Answers the host's request for a certificate; false when it makes none soon. */
  reenroll(): Promise<boolean>;
}

/** Where hosts of this machine are looked up. */
export interface HostDirectory {
  findHost(hostId: string): Promise<KnownHost | undefined>;
}

export class LocalAgents implements Agents {
  constructor(private readonly directory: HostDirectory) {}

  connect(connection: HostConnection): AgentClient {
    const known = () => this.directory.findHost(connection.hostId);
    return new HostAgentClient(connection, {
      async renew(client, host) {
        const authority = (await known())?.certificateAuthority ?? (await authorityBeside(connection));
        // A failure is no reason not to work: there are days left, and the next connection tries again.
        if (authority) await renewIfDue(client, host, authority).catch(() => undefined);
      },
      async reenroll() {
        return (await known())?.reenroll() ?? false;
      },
    });
  }

  async find(hostId: string): Promise<HostConnection | undefined> {
    return (await this.directory.findHost(hostId))?.connection;
  }

  async powerState(hostId: string): Promise<"running" | "stopped" | undefined> {
    return (await this.directory.findHost(hostId))?.powerState();
  }

  async isStopped(hostId: string): Promise<boolean> {
    return (await this.powerState(hostId)) === "stopped";
  }

  async removeAtStart(hostId: string, thing: HostedThing): Promise<boolean> {
    const host = await this.directory.findHost(hostId);
    if ((await host?.powerState()) !== "stopped") return false;
    await host!.removeAtStart(thing);
    return true;
  }
}
