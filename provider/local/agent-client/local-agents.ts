/** Agents of hosts. Renews the certificates of hosts on this machine, and of others whose authority is here. */
import type { AgentClient, Agents, BootProgress, HostConnection, HostedThing } from "../../backends/index.js";
import { CertificateRefusedError } from "../certificates/host-certificate.js";
import type { IdentityRecord } from "../certificates/host-identity.js";
import { HostAgentClient } from "./client.js";
import { authorityBeside, convergeHost } from "./renewal.js";

/** A host that provably does not run. */
export interface StoppedHost {
  /** Records what has to be removed from it at its next start. */
  removeAtStart(thing: HostedThing): Promise<void>;
}

/** What is known of a host that runs on this machine. */
export interface KnownHost extends StoppedHost {
  connection: HostConnection;
  certificateAuthority: { certificateFile: string; keyFile: string };
  identityRecord: IdentityRecord;
  /** Whether its machine runs, as its hypervisor says. */
  powerState(): Promise<"running" | "stopped">;
  /** Progress of its boot; undefined when it does not boot. */
  boot(): Promise<BootProgress | undefined>;
  /** Answers the host's request for a certificate; false when it makes none soon. */
  reenroll(): Promise<boolean>;
}

/** Where hosts of this machine are looked up. */
export interface HostDirectory {
  findHost(hostId: string): Promise<KnownHost | undefined>;
  /** A host whose state disk is here and has no machine. */
  findDetached(hostId: string): Promise<StoppedHost | undefined>;
  /** The record of a host's identity that has no machine here, such as one on bare metal. */
  metalIdentityRecord(hostId: string): IdentityRecord;
}

export class LocalAgents implements Agents {
  constructor(private readonly directory: HostDirectory) {}

  connect(connection: HostConnection): AgentClient {
    const { directory } = this;
    const known = () => directory.findHost(connection.hostId);
    return new HostAgentClient(connection, {
      async authority() {
        return (await known())?.certificateAuthority;
      },
      async renew(client, host) {
        const found = await known();
        const authority = found?.certificateAuthority ?? (await authorityBeside(connection));
        if (!authority) return;
        const record = found?.identityRecord ?? directory.metalIdentityRecord(connection.hostId);
        await convergeHost(client, host, authority, record).catch((error: unknown) => {
          // Another failure does not fail the call: there are days left, and the next connection tries again.
          if (error instanceof CertificateRefusedError) throw error;
        });
      },
      async reenroll() {
        return (await known())?.reenroll() ?? false;
      },
    });
  }

  async find(hostId: string): Promise<HostConnection | undefined> {
    return (await this.directory.findHost(hostId))?.connection;
  }

  async boot(hostId: string): Promise<BootProgress | undefined> {
    return (await this.directory.findHost(hostId))?.boot();
  }

  async isStopped(hostId: string): Promise<boolean> {
    return (await this.findStopped(hostId)) !== undefined;
  }

  async removeAtStart(hostId: string, thing: HostedThing): Promise<boolean> {
    const host = await this.findStopped(hostId);
    await host?.removeAtStart(thing);
    return host !== undefined;
  }

  private async findStopped(hostId: string): Promise<StoppedHost | undefined> {
    const host = await this.directory.findHost(hostId);
    if (!host) return this.directory.findDetached(hostId);
    return (await host.powerState()) === "stopped" ? host : undefined;
  }
}
