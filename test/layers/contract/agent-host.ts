/**
 * A host without a machine: the agent's roles as processes on this one, with mutual TLS in front.
 * hosts/agent/internal/testhost stands for containerd and for the registry.
 */
import { once } from "node:events";
import { mkdir, mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { createInterface } from "node:readline";
import { Readable } from "node:stream";
import { create, fromJsonString, toJsonString } from "@bufbuild/protobuf";
import { timestampNow } from "@bufbuild/protobuf/wkt";
import { HostAgentClient } from "../../../provider/local/agent-client/client.js";
import { readAuthority } from "../../../provider/local/certificates/authority.js";
import { issueHostCertificate, type IdentityRecord } from "../../../provider/local/certificates/host-identity.js";
import { makeAuthority, makeClient, memoryRecord } from "../../../provider/local/certificates/testing.js";
import type { HostConnection, KeyPairFiles } from "../../../provider/backends/index.js";
import { run } from "../../../provider/system/command.js";
import {
  EnrollmentRequestSchema,
  EnrollmentResponseSchema,
} from "../../../hosts/api/gen/palisade/agent/v1/enrollment_pb.js";
import type { AgentSubject } from "./agent.js";
import { ServingProcess } from "./role.js";

/** What testhost says once it serves. */
interface TestHost {
  images: [string, string];
  server: string;
  endpoint: string;
  ca: string;
  username: string;
  password: string;
}

export class AgentHost implements AgentSubject {
  readonly hasNetwork = process.getuid?.() === 0;
  connection!: HostConnection;
  /** The CA of the host and of its clients. */
  authority!: KeyPairFiles;
  images!: AgentSubject["images"];
  registry!: AgentSubject["registry"];
  private readonly programs: ServingProcess[] = [];
  private api!: ServingProcess;

  private constructor(
    private readonly folder: string,
    private readonly record: IdentityRecord,
  ) {}

  /** The agent's program. */
  get program(): string {
    return this.at("bin/agent");
  }

  /** The folder with the host's id and key. */
  get identityFolder(): string {
    return this.at("api");
  }

  /**
   * Builds the programs, which takes seconds where Go has its cache, and starts them.
   *
   * @param record takes the host's identity. Default: one in memory.
   */
  static async start(record: IdentityRecord = memoryRecord()): Promise<AgentHost> {
    const host = new AgentHost(await mkdtemp(path.join(tmpdir(), "palisade-host-")), record);
    try {
      await run("go", ["build", "-o", `${host.folder}/bin/`, "./hosts/agent", "./hosts/agent/internal/testhost"]);
      await host.startRuntime();
      await host.enroll();
      await host.startRoles();
    } catch (error) {
      await host.stop();
      throw error;
    }
    return host;
  }

  /** What the roles have logged. */
  get log(): string {
    return this.programs.map(({ log }) => log).join("");
  }

  connect(connection: HostConnection): HostAgentClient {
    return new HostAgentClient(connection);
  }

  async silence(): Promise<() => Promise<void>> {
    await this.api.stop("SIGKILL");
    return () => this.startApi(new URL(this.connection.endpoint).host);
  }

  async stop(): Promise<void> {
    await Promise.all(this.programs.map((program) => program.stop("SIGKILL")));
    await rm(this.folder, { recursive: true, force: true });
  }

  private at(name: string): string {
    return path.join(this.folder, name);
  }

  private async startRuntime(): Promise<void> {
    const command = [this.at("bin/testhost"), "-socket", this.at("cri"), "-trust", this.at("trust")];
    const runtime = await ServingProcess.listening(this.at("cri"), command);
    this.programs.push(runtime);
    const [line] = (await once(createInterface({ input: runtime.child.stdout! }), "line")) as [string];
    const { images, ...registry } = JSON.parse(line) as TestHost;
    this.images = images;
    this.registry = registry;
  }

  /** First contact, as at an installation. */
  private async enroll(): Promise<void> {
    const authority = (this.authority = await makeAuthority(this.folder));
    const client = await makeClient(this.folder, authority);
    const identity = ["identity", "-data", this.at("api")];
    const asked = await run(this.at("bin/agent"), [...identity, "request"]);
    const { hostId, certificateRequest } = fromJsonString(EnrollmentRequestSchema, asked);
    const signer = await readAuthority(authority);
    const answer = create(EnrollmentResponseSchema, {
      certificateChain: await issueHostCertificate(signer, { hostId, certificateRequest }, this.record),
      certificateAuthority: signer.certificate,
      signerTime: timestampNow(),
    });
    const input = Readable.from([Buffer.from(toJsonString(EnrollmentResponseSchema, answer))]);
    await run(this.at("bin/agent"), [...identity, "enroll"], { input });
    this.connection = {
      hostId,
      endpoint: "",
      certificateAuthority: signer.certificate,
      clientCertificateFile: client.certificateFile,
      clientKeyFile: client.keyFile,
      publishedPorts: [],
    };
  }

  private async startRoles(): Promise<void> {
    const command = (role: string, more: string[]) => [
      ...[this.at("bin/agent"), role, "-socket", this.at(role), "-socket-group", ""],
      ...more,
    ];
    const trust = ["-trust", this.at("trust")];
    const roles: [string, string[]][] = [
      ["images", command("images", ["-data", this.at("images-data"), "-store", this.at("layers"), ...trust])],
      ["integrity", command("integrity", [])],
      [
        "groups",
        command("groups", [
          ...["-data", this.at("groups-data"), "-certificates", this.at("certs.d"), "-containerd", this.at("cri")],
          ...["-integrity-socket", this.at("integrity"), "-images-socket", this.at("images")],
          ...["-netd-socket", this.at("netd"), "-built-in-layers", this.at("built-in"), "-layers", this.at("layers")],
          ...[...trust, "-poll-interval", "100ms"],
        ]),
      ],
    ];
    if (this.hasNetwork) {
      const [pins, state] = [this.at("bpf"), this.at("netd-state")];
      await mkdir(pins);
      // In a network and with a BPF file system of its own.
      const script = `mount -t bpf bpf "$0" && ip link set lo up && exec "$@"`;
      const netd = command("netd", ["-state", state, "-pins", pins]);
      roles.push(["netd", ["unshare", "--net", "--mount", "sh", "-c", script, pins, ...netd]]);
    }
    await Promise.all(
      roles.map(async ([role, words]) => {
        this.programs.push(await ServingProcess.listening(this.at(role), words));
      }),
    );
    await this.startApi("127.0.0.1:0");
    await this.untilReady();
  }

  private async startApi(address: string): Promise<void> {
    const sockets = ["-groups-socket", this.at("groups"), "-integrity-socket", this.at("integrity")];
    const listen = ["-listen", address, "-data", this.at("api"), "-enrollment-port", this.at("none")];
    const command = [this.at("bin/agent"), "api", ...listen, ...sockets];
    const addressOf = ({ log }: ServingProcess) => /msg=serving .*\baddress=(\S+)/.exec(log)?.[1];
    this.api = await ServingProcess.start(command, (api) => addressOf(api) !== undefined);
    this.programs.push(this.api);
    this.connection.endpoint = `https://${addressOf(this.api)}`;
  }

  /** The role groups has to see the runtime once. */
  private async untilReady(): Promise<void> {
    const client = this.connect(this.connection);
    try {
      for (let waited = 0; ; waited += 50) {
        const { ready, readyMessage } = await client.getHost();
        if (ready) return;
        if (waited > 10_000) throw new Error(`the host is not ready: ${readyMessage}`);
        await new Promise((resolve) => setTimeout(resolve, 50));
      }
    } finally {
      client.close();
    }
  }
}
