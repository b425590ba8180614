/** The agent of one host, as the provider's resources see it. */
import { Code, ConnectError, type CallOptions } from "@connectrpc/connect";
import type {
  GetHostResponse,
  GetIntegrityResponse,
  Group,
  GroupSpec,
} from "../../../hosts/api/gen/palisade/agent/v1/agent_pb.js";
import type { ApplyImagePolicyResponse, ImagePolicy } from "../../../hosts/api/gen/palisade/agent/v1/images_pb.js";
import type { ApplyPolicyResponse, GetNetworkResponse } from "../../../hosts/api/gen/palisade/agent/v1/network_pb.js";
import type { AgentClient, HostConnection, KeyPairFiles } from "../../backends/index.js";
import type { HostIdentity } from "../certificates/host-identity.js";
import { renewClientIdentity } from "./client-identity.js";
import { isCertificateProblem, translate } from "./errors.js";
import { dialHost, type DialledHost, type HostServices } from "./transport.js";

/** Keeps the certificate of a host valid. */
export interface CertificateCare {
  /** Called once per client, with the host's description of itself. */
  renew(client: HostAgentClient, host: GetHostResponse): Promise<void>;
  /** Called when a certificate was refused; true when the host got a new one and the call is worth another attempt. */
  reenroll(): Promise<boolean>;
  /** The CA that renews the client's own certificate. Default: the one beside the certificate. */
  authority?(): Promise<KeyPairFiles | undefined>;
}

export class HostAgentClient implements AgentClient {
  private dialled: DialledHost;
  private prepared: Promise<void> | undefined;

  constructor(
    private readonly connection: HostConnection,
    private readonly care?: CertificateCare,
  ) {
    this.dialled = dialHost(connection);
  }

  private get services(): HostServices {
    return this.dialled.services;
  }

  /** @param timeoutMs how long to wait for the answer, default 15 s. */
  getHost(timeoutMs?: number): Promise<GetHostResponse> {
    return this.call(() => this.services.hosts.getHost({}, { timeoutMs }));
  }

  getIntegrity(): Promise<GetIntegrityResponse> {
    return this.call(() => this.services.hosts.getIntegrity({}));
  }

  /** Who the host is by its certificate. @throws before the first answer. */
  provenIdentity(): HostIdentity {
    const keyDigest = this.dialled.keyDigest();
    if (keyDigest === undefined) throw new Error(`${this.name()}: has not authenticated itself yet`);
    return { hostId: this.connection.hostId, keyDigest };
  }

  /** PKCS#10, PEM. */
  async createCertificateRequest(): Promise<string> {
    return (await this.call(() => this.services.hosts.createCertificateRequest({}))).certificateRequest;
  }

  async installCertificate(certificateChain: string): Promise<void> {
    await this.call(() => this.services.hosts.installCertificate({ certificateChain }));
  }

  /** Serial numbers of client certificates that the host refuses from now on. */
  async revokeClientCertificates(serialNumbers: string[]): Promise<void> {
    await this.call(() => this.services.hosts.revokeClientCertificates({ serialNumbers }));
  }

  /** The CAs, PEM, that the host accepts from now on, of clients and of its own certificate. */
  async setCertificateAuthorities(certificateAuthorities: string[]): Promise<void> {
    await this.call(() => this.services.hosts.setCertificateAuthorities({ certificateAuthorities }));
  }

  /** Asks the host to shut down in an orderly way; returns when it has agreed. */
  async powerOff(): Promise<void> {
    await this.call(() => this.services.hosts.powerOff({}));
  }

  async applyGroup(spec: GroupSpec, dryRun = false, expectedGeneration = 0n): Promise<Group> {
    const request = { spec, dryRun, expectedGeneration };
    const { group } = await this.call(() => this.services.groups.applyGroup(request, { timeoutMs: 60_000 }));
    return group ?? this.incomplete("group");
  }

  async getGroup(name: string): Promise<Group | undefined> {
    const answer = await this.unlessNotFound(() => this.services.groups.getGroup({ name }));
    return answer && (answer.group ?? this.incomplete("group"));
  }

  async deleteGroup(name: string): Promise<void> {
    await this.call(() => this.services.groups.deleteGroup({ name }, { timeoutMs: 120_000 }));
  }

  async *watchGroup(name: string, signal: AbortSignal): AsyncIterable<Group> {
    // A stream lasts as long as its watcher: only the signal ends it. 0 switches the transport's default time-out off.
    const options: CallOptions = { signal, timeoutMs: 0 };
    try {
      await (this.prepared ??= this.prepare());
      for await (const { group } of this.services.groups.watchGroup({ name }, options)) {
        if (group) yield group;
      }
    } catch (error) {
      signal.throwIfAborted();
      throw translate(error, this.name());
    }
  }

  async getLogs(group: string, container: string, tailLines: number): Promise<string> {
    return this.call(async () => {
      const chunks: Uint8Array[] = [];
      for await (const { data } of this.services.groups.getLogs({ group, container, tailLines })) chunks.push(data);
      return Buffer.concat(chunks).toString();
    });
  }

  async suspendReconcile(seconds: number): Promise<void> {
    await this.call(() => this.services.groups.suspendReconcile({ duration: { seconds: BigInt(seconds) } }));
  }

  async applyImagePolicy(policy: ImagePolicy, dryRun = false): Promise<ApplyImagePolicyResponse> {
    const answer = await this.call(() => this.services.imagePolicies.applyImagePolicy({ policy, dryRun }));
    return answer.policy ? answer : this.incomplete("image policy");
  }

  async getImagePolicy(name: string): Promise<ImagePolicy | undefined> {
    const answer = await this.unlessNotFound(() => this.services.imagePolicies.getImagePolicy({ name }));
    return answer && (answer.policy ?? this.incomplete("image policy"));
  }

  async deleteImagePolicy(name: string): Promise<void> {
    await this.call(() => this.services.imagePolicies.deleteImagePolicy({ name }));
  }

  applyNetworkPolicy(compiled: string, hash: string, dryRun = false): Promise<ApplyPolicyResponse> {
    const request = { policy: new TextEncoder().encode(compiled), expectedHash: hash, dryRun };
    return this.call(() => this.services.networks.applyPolicy(request, { timeoutMs: 120_000 }));
  }

  async getNetworkPolicy(): Promise<string | undefined> {
    const answer = await this.unlessNotFound(() => this.services.networks.getPolicy({}, { timeoutMs: 120_000 }));
    return answer && new TextDecoder().decode(answer.policy);
  }

  async deleteNetworkPolicy(): Promise<void> {
    await this.call(() => this.services.networks.deletePolicy({}, { timeoutMs: 120_000 }));
  }

  getNetwork(): Promise<GetNetworkResponse> {
    return this.call(() => this.services.networks.getNetwork({}, { timeoutMs: 120_000 }));
  }

  async repairNetwork(): Promise<string[]> {
    return (await this.call(() => this.services.networks.repair({}, { timeoutMs: 120_000 }))).problems;
  }

  close(): void {
    this.dialled.close();
  }

  private name(): string {
    return `host ${this.connection.hostId} at ${this.connection.endpoint}`;
  }

  private incomplete(what: string): never {
    throw new Error(`${this.name()}: the answer holds no ${what}; agent and provider are of different versions`);
  }

  /** undefined when the host itself says that there is no such thing. */
  private async unlessNotFound<T>(work: () => Promise<T>): Promise<T | undefined> {
    try {
      return await this.call(work);
    } catch (error) {
      if (error instanceof Error && error.cause instanceof ConnectError && error.cause.code === Code.NotFound) {
        return undefined;
      }
      throw error;
    }
  }

  private async call<T>(work: () => Promise<T>): Promise<T> {
    try {
      await (this.prepared ??= this.prepare());
      return await work();
    } catch (error) {
      throw translate(error, this.name());
    }
  }

  /**
   * Before the first call: the client's and the host's certificates are renewed when they are near their ends. An
   * expired one of the host is replaced by enrolling again.
   */
  private async prepare(): Promise<void> {
    const { care, connection } = this;
    if ((await renewClientIdentity(connection, async () => care?.authority?.())) === "renewed") {
      this.dialled.close();
      this.dialled = dialHost(connection);
    }
    if (!care) return;
    const ask = () => this.services.hosts.getHost({});
    let host: GetHostResponse;
    try {
      host = await ask();
    } catch (error) {
      if (!isCertificateProblem(error) || !(await care.reenroll())) return;
      // The call that follows reports what is still wrong.
      return;
    }
    // Renewal calls this client again, which must not wait for itself.
    this.prepared = Promise.resolve();
    await care.renew(this, host);
  }
}
