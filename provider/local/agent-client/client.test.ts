import { once } from "node:events";
import { createPublicKey } from "node:crypto";
import { mkdtemp, readFile, writeFile } from "node:fs/promises";
import { createSecureServer, type Http2SecureServer } from "node:http2";
import { join } from "node:path";
import { create } from "@bufbuild/protobuf";
import { timestampFromDate } from "@bufbuild/protobuf/wkt";
import { Code, ConnectError, type ConnectRouter } from "@connectrpc/connect";
import { connectNodeAdapter } from "@connectrpc/connect-node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import {
  GetHostResponseSchema,
  GroupSchema,
  GroupService,
  HostService,
} from "../../../hosts/api/gen/palisade/agent/v1/agent_pb.js";
import type { HostConnection, KeyPairFiles } from "../../backends/index.js";
import { readAuthority } from "../certificates/authority.js";
import { signClientCertificate } from "../certificates/client-certificate.js";
import { signHostCertificate } from "../certificates/host-certificate.js";
import { recordRevocations } from "../certificates/revocations.js";
import { makeAuthority, makeClient, makeRequest, memoryRecord } from "../certificates/testing.js";
import { day, privateKeyPem, type webcrypto } from "../certificates/x509.js";
import { withFolder } from "../../system/testing.js";
import { HostAgentClient } from "./client.js";
import { LocalAgents, type KnownHost } from "./local-agents.js";
import { discoverIdentity } from "./transport.js";

const hostId = "host-0123456789abcdef";

const none = async () => undefined;

/** An agent in this process: mutual TLS, a certificate that can be changed while it serves. */
class TestAgent {
  notAfter = new Date(Date.now() + 30 * day);
  installed = 0;
  server!: Http2SecureServer;
  keys!: webcrypto.CryptoKeyPair;
  keyDigest!: string;
  request!: string;
  /** What it says of itself. */
  claimedId = hostId;
  revoked: string[] = [];

  async start(authority: KeyPairFiles, signedAt = new Date()): Promise<void> {
    const made = await makeRequest(hostId);
    this.keys = made.keys;
    this.keyDigest = made.keyDigest;
    this.request = made.pem;
    this.server = createSecureServer(
      {
        ca: await readFile(authority.certificateFile),
        key: await privateKeyPem(this.keys.privateKey),
        cert: await signHostCertificate(await readAuthority(authority), hostId, this.request, signedAt),
        requestCert: true,
        rejectUnauthorized: true,
      },
      connectNodeAdapter({ routes: (router) => this.routes(router) }),
    );
    this.server.listen(0, "127.0.0.1");
    await once(this.server, "listening");
  }

  get port(): number {
    return (this.server.address() as { port: number }).port;
  }

  /** Serves new connections with a certificate signed now. */
  async recertify(authority: KeyPairFiles): Promise<void> {
    this.server.setSecureContext({
      ca: await readFile(authority.certificateFile),
      key: await privateKeyPem(this.keys.privateKey),
      cert: await signHostCertificate(await readAuthority(authority), hostId, this.request),
    });
  }

  private routes(router: ConnectRouter): void {
    router.service(HostService, {
      getHost: () =>
        create(GetHostResponseSchema, {
          hostId: this.claimedId,
          ready: true,
          certificateNotAfter: timestampFromDate(this.notAfter),
          revokedSerialNumbers: this.revoked,
        }),
      revokeClientCertificates: ({ serialNumbers }) => {
        this.revoked.push(...serialNumbers);
        return { revokedSerialNumbers: this.revoked };
      },
      createCertificateRequest: () => ({ certificateRequest: this.request }),
      installCertificate: () => {
        this.installed++;
        this.notAfter = new Date(Date.now() + 30 * day);
        return {};
      },
    });
    router.service(GroupService, {
      getGroup: ({ name }) => {
        if (name !== "web") throw new ConnectError("no such group", Code.NotFound);
        return { group: create(GroupSchema, { generation: 1n }) };
      },
      async *watchGroup() {
        for (const generation of [1n, 2n]) yield { group: create(GroupSchema, { generation }) };
      },
      async *getLogs() {
        yield { data: Buffer.from("one\n"), stream: "stdout" };
        yield { data: Buffer.from("two\n"), stream: "stderr" };
      },
    });
  }
}

let folder = "";
let authority: KeyPairFiles;
let client: KeyPairFiles;
let finish: () => void;
let cleaned: Promise<void>;

beforeAll(async () => {
  await new Promise<void>((ready) => {
    cleaned = withFolder(async (made) => {
      folder = made;
      authority = await makeAuthority(folder);
      client = await makeClient(folder, authority);
      ready();
      await new Promise<void>((resolve) => (finish = resolve));
    });
  });
});
afterAll(async () => {
  finish();
  await cleaned;
});

async function connection(port: number, id = hostId): Promise<HostConnection> {
  return {
    hostId: id,
    endpoint: `https://127.0.0.1:${port}`,
    certificateAuthority: await readFile(authority.certificateFile, "utf8"),
    clientCertificateFile: client.certificateFile,
    clientKeyFile: client.keyFile,
    publishedPorts: [],
  };
}

async function withAgent(work: (agent: TestAgent) => Promise<void>, signedAt?: Date): Promise<void> {
  const agent = new TestAgent();
  await agent.start(authority, signedAt);
  try {
    await work(agent);
  } finally {
    agent.server.close();
  }
}

async function withClient(made: HostAgentClient, work: (made: HostAgentClient) => Promise<unknown>): Promise<void> {
  try {
    await work(made);
  } finally {
    made.close();
  }
}

describe("HostAgentClient", () => {
  it("talks to the host it was given", async () => {
    await withAgent(async (agent) => {
      await withClient(new HostAgentClient(await connection(agent.port)), async (host) => {
        expect((await host.getHost()).hostId).toBe(hostId);
        expect((await host.getGroup("web"))?.generation).toBe(1n);
        expect(await host.getGroup("absent")).toBeUndefined();
        expect(await host.getLogs("web", "nginx", 10)).toBe("one\ntwo\n");
        const generations: bigint[] = [];
        for await (const group of host.watchGroup("web", new AbortController().signal)) {
          generations.push(group.generation);
        }
        expect(generations).toEqual([1n, 2n]);
      });
    });
  });

  it("tells a host that does not answer from one that is another", async () => {
    await withAgent(async (agent) => {
      const { port } = agent;
      await withClient(new HostAgentClient(await connection(port, "host-ffffffffffffffff")), async (host) => {
        await expect(host.getHost()).rejects.toMatchObject({ name: "ForeignHostError" });
      });
      const other = await makeAuthority(folder, "other");
      const wrong = {
        ...(await connection(port)),
        certificateAuthority: await readFile(other.certificateFile, "utf8"),
      };
      await withClient(new HostAgentClient(wrong), async (host) => {
        await expect(host.getHost()).rejects.toMatchObject({ name: "ForeignHostError" });
      });
    });
    await withClient(new HostAgentClient(await connection(1)), async (host) => {
      await expect(host.getHost()).rejects.toMatchObject({ name: "UnreachableHostError" });
    });
  });

  it("renews its own certificate, which has expired, before the first call", async () => {
    const own = await mkdtemp(join(folder, "expired-"));
    const files = { certificateFile: join(own, "client.crt"), keyFile: client.keyFile };
    const signer = await readAuthority(authority);
    const key = createPublicKey(await readFile(client.keyFile, "utf8"));
    const role = { role: "operator", days: 7 } as const;
    const expired = await signClientCertificate(signer, key, role, new Date(Date.now() - 8 * day));
    await withAgent(async (agent) => {
      const expiredClient = { ...(await connection(agent.port)), clientCertificateFile: files.certificateFile };
      const withAuthority = { renew: none, reenroll: async () => false, authority: async () => authority };
      for (const call of [
        (host: HostAgentClient) => host.getHost(),
        async (host: HostAgentClient) => {
          for await (const group of host.watchGroup("web", new AbortController().signal)) return group;
          return undefined;
        },
      ]) {
        await writeFile(files.certificateFile, expired);
        await withClient(new HostAgentClient(expiredClient, withAuthority), call);
      }
      // The control: nobody renews it.
      await writeFile(files.certificateFile, expired);
      await withClient(new HostAgentClient(expiredClient), async (host) => {
        await expect(host.getHost()).rejects.toThrow(/client\.crt has expired on .*palisade keys client/);
      });
    });
  });

  it("names the key file that cannot be read", async () => {
    const missing = { ...(await connection(1)), clientKeyFile: "/nowhere/client.key" };
    expect(() => new HostAgentClient(missing)).toThrow(
      /clientIdentity\.keyFile: \/nowhere\/client\.key cannot be read/,
    );
  });
});

const metalIdentityRecord = (id: string) => memoryRecord({ hostId: id });

describe("LocalAgents", () => {
  const known = async (agent: TestAgent, reenroll: () => Promise<boolean>): Promise<KnownHost> => ({
    connection: await connection(agent.port),
    certificateAuthority: authority,
    identityRecord: memoryRecord({ hostId }),
    powerState: async () => "running",
    boot: none,
    removeAtStart: async () => undefined,
    reenroll,
  });

  it("renews a certificate with less than a third of its life left, once", async () => {
    await withAgent(async (agent) => {
      agent.notAfter = new Date(Date.now() + 9 * day);
      const host = await known(agent, async () => false);
      const agents = new LocalAgents({
        findHost: async (id) => (id === hostId ? host : undefined),
        findDetached: none,
        metalIdentityRecord,
      });
      await withClient(agents.connect(host.connection) as HostAgentClient, async (made) => {
        await made.getHost();
        await made.getHost();
        expect(agent.installed).toBe(1);
      });
    });
  });

  it("renews that of a host on bare metal, by the authority beside the client's certificate and no other", async () => {
    const agents = new LocalAgents({ findHost: none, findDetached: none, metalIdentityRecord });
    const other = await makeAuthority(folder, "other");
    await withAgent(async (agent) => {
      agent.notAfter = new Date(Date.now() + 9 * day);
      const host = await connection(agent.port);
      const certificates = `${await readFile(other.certificateFile, "utf8")}${host.certificateAuthority}`;
      for (const [certificateAuthority, installed] of [
        [certificates, 0],
        [host.certificateAuthority, 1],
      ] as const) {
        await withClient(agents.connect({ ...host, certificateAuthority }) as HostAgentClient, async (made) => {
          await made.getHost();
          expect(agent.installed).toBe(installed);
        });
      }
    });
  });

  it.each<[string, (agent: TestAgent) => Promise<void>, RegExp]>([
    [
      "another id",
      async (agent) => {
        agent.claimedId = "host-ffffffffffffffff";
        agent.request = (await makeRequest(agent.claimedId)).pem;
      },
      /host-f+ asks for a certificate over the connection of host host-0123456789abcdef/,
    ],
    [
      "another key",
      async (agent) => {
        agent.request = (await makeRequest(hostId)).pem;
      },
      /the key sha256:\w{64}, not for sha256:/,
    ],
  ])("renews no certificate for %s than the connection's, here or on bare metal", async (_name, change, message) => {
    await withAgent(async (agent) => {
      agent.notAfter = new Date(Date.now() + 9 * day);
      await change(agent);
      const host = await known(agent, async () => false);
      const metal = memoryRecord({ hostId });
      for (const [findHost, record] of [
        [async () => host, host.identityRecord],
        [none, metal],
      ] as const) {
        const agents = new LocalAgents({ findHost, findDetached: none, metalIdentityRecord: () => metal });
        await withClient(agents.connect(host.connection) as HostAgentClient, async (made) => {
          await expect(made.getHost()).rejects.toThrow(message);
          expect(agent.installed).toBe(0);
          // The key that the host has authenticated itself with, not the one that it asked for.
          expect(await record.read()).toEqual({ hostId, keyDigest: agent.keyDigest });
        });
      }
    });
  });

  it("declares the revocations that a host has missed, and no others", async () => {
    const own = await mkdtemp(join(folder, "revoked-"));
    const files = await makeAuthority(own);
    await recordRevocations(files.certificateFile, ["a1", "b0"]);
    await withAgent(async (agent) => {
      agent.revoked = ["a1", "c2"];
      const host = { ...(await known(agent, async () => false)), certificateAuthority: files };
      const agents = new LocalAgents({ findHost: async () => host, findDetached: none, metalIdentityRecord });
      for (let times = 0; times < 2; times++) {
        await withClient(agents.connect(host.connection) as HostAgentClient, (made) => made.getHost());
        expect(agent.revoked).toEqual(["a1", "c2", "b0"]);
      }
    });
  });

  it("records the key of a host of an older version though no renewal is due", async () => {
    await withAgent(async (agent) => {
      const host = await known(agent, async () => false);
      const agents = new LocalAgents({ findHost: async () => host, findDetached: none, metalIdentityRecord });
      await withClient(agents.connect(host.connection) as HostAgentClient, (made) => made.getHost());
      expect(await host.identityRecord.read()).toEqual({ hostId, keyDigest: agent.keyDigest });
      expect(agent.installed).toBe(0);
    });
  });

  it("has an expired host enroll again, and goes on", async () => {
    let asked = 0;
    await withAgent(
      async (agent) => {
        const host = await known(agent, async () => {
          asked++;
          await agent.recertify(authority);
          return true;
        });
        const agents = new LocalAgents({ findHost: async () => host, findDetached: none, metalIdentityRecord });
        await withClient(agents.connect(host.connection) as HostAgentClient, async (made) => {
          expect((await made.getHost()).hostId).toBe(hostId);
          expect(asked).toBe(1);
        });
      },
      new Date(Date.now() - 31 * day),
    );
  });

  it("says that an expired host which is not ours is unreachable", async () => {
    await withAgent(
      async (agent) => {
        const agents = new LocalAgents({ findHost: none, findDetached: none, metalIdentityRecord });
        await withClient(agents.connect(await connection(agent.port)) as HostAgentClient, async (made) => {
          await expect(made.getHost()).rejects.toMatchObject({
            name: "UnreachableHostError",
            message: expect.stringContaining("expired") as string,
          });
        });
      },
      new Date(Date.now() - 31 * day),
    );
  });
});

it("removes at the next start only from a host of this machine that is stopped or has no machine", async () => {
  const removed: string[] = [];
  const host = (powerState: "running" | "stopped") =>
    ({
      powerState: async () => powerState,
      removeAtStart: async ({ name }) => void removed.push(name),
    }) as KnownHost;
  const hosts: Record<string, KnownHost> = { runs: host("running"), stopped: host("stopped") };
  const agents = new LocalAgents({
    findHost: async (id) => hosts[id],
    findDetached: async (id) => (id === "detached" ? host("stopped") : undefined),
    metalIdentityRecord,
  });
  const ids = ["runs", "stopped", "detached", "elsewhere"];
  const noted = ids.map((id) => agents.removeAtStart(id, { kind: "group", name: id }));
  expect(await Promise.all(noted)).toEqual([false, true, true, false]);
  expect(removed.sort()).toEqual(["detached", "stopped"]);
  expect(await Promise.all(ids.map((id) => agents.isStopped(id)))).toEqual([false, true, true, false]);
});

describe("discoverIdentity", () => {
  it("asks who answers, and takes nobody's word without the CA's signature", async () => {
    await withAgent(async (agent) => {
      const address = { host: "127.0.0.1", port: agent.port };
      const ca = await readFile(authority.certificateFile, "utf8");
      expect(await discoverIdentity(address, ca, client)).toEqual({ hostId, keyDigest: agent.keyDigest });
      const other = await readFile((await makeAuthority(folder, "other")).certificateFile, "utf8");
      expect(await discoverIdentity(address, other, client)).toBeUndefined();
      expect(await discoverIdentity({ ...address, port: 1 }, ca, client)).toBeUndefined();
    });
  });
});
