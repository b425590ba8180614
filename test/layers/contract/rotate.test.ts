/** `palisade keys rotate` with the real agent. */
import { chmod, copyFile, mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { rotateAuthority } from "../../../cli/rotate.js";
import type { HostConnection } from "../../../provider/backends/index.js";
import type { HostAgentClient } from "../../../provider/local/agent-client/client.js";
import { renewClientIdentity } from "../../../provider/local/agent-client/client-identity.js";
import { authorityBeside } from "../../../provider/local/agent-client/renewal.js";
import { AgentHost } from "./agent-host.js";

let folder: string;
let keys: string;
let host: AgentHost;
/** As the state of the stack has it: with the first CA, whatever happens. */
let connection: HostConnection;
let oldClient: HostConnection;

const file = (name: string) => path.join(keys, "hosts", name);
const content = (name: string) => readFile(file(name), "utf8");
const names = async () => (await readdir(path.join(keys, "hosts"))).filter((name) => !name.startsWith("."));

async function ask<T>(to: HostConnection, work: (client: HostAgentClient) => Promise<T>): Promise<T> {
  const client = host.connect(to);
  try {
    return await work(client);
  } finally {
    client.close();
  }
}
const facts = (to: HostConnection) => ask(to, (client) => client.getHost());
const accepted = async () => (await facts(connection)).authorityFingerprints.length;

/** The stack's state, with the connection. */
async function writeState(): Promise<void> {
  const urn = "urn:pulumi:local::palisade::palisade:index:BareMetalHost::edge";
  const resources = [{ urn, type: "palisade:index:BareMetalHost", outputs: { connection } }];
  await writeFile(path.join(folder, "export.json"), JSON.stringify({ version: 3, deployment: { resources } }));
}

beforeAll(async () => {
  folder = await mkdtemp(path.join(tmpdir(), "palisade-rotate-"));
  keys = path.join(folder, "keys");
  await mkdir(path.join(keys, "hosts"), { recursive: true, mode: 0o700 });
  host = await AgentHost.start();
  for (const [name, from] of [
    ["ca.crt", host.authority.certificateFile],
    ["ca.key", host.authority.keyFile],
    ["client.crt", host.connection.clientCertificateFile],
    ["client.key", host.connection.clientKeyFile],
  ] as const) {
    await copyFile(from, file(name));
    await chmod(file(name), 0o600);
  }
  connection = { ...host.connection, clientCertificateFile: file("client.crt"), clientKeyFile: file("client.key") };
  // A copy of the operator's certificate that nobody renews.
  const lost = path.join(folder, "lost");
  await mkdir(lost);
  await copyFile(file("client.crt"), path.join(lost, "client.crt"));
  oldClient = { ...connection, clientCertificateFile: path.join(lost, "client.crt") };

  const bin = path.join(folder, "bin");
  await mkdir(bin);
  await writeFile(path.join(bin, "pulumi"), `#!/bin/sh\ncat '${folder}/export.json'\n`, { mode: 0o755 });
  await writeState();
  vi.stubEnv("PATH", `${bin}:${process.env["PATH"]}`);
  vi.stubEnv("PULUMI_BACKEND_URL", "file:///nowhere");
  vi.stubEnv("PALISADE_STATE", path.join(folder, "state"));
});
afterAll(async () => {
  vi.unstubAllEnvs();
  await host?.stop();
  await rm(folder, { recursive: true, force: true });
});

describe("palisade keys rotate", () => {
  it("has nothing to finish before it has begun", async () => {
    await expect(rotateAuthority({ finish: true, keys })).rejects.toThrow(/no rotation has begun/);
    expect(await names()).toEqual(["ca.crt", "ca.key", "client.crt", "client.key"]);
  });

  it("keeps the new CA while a host does not answer, and changes nothing in use", async () => {
    const before = await content("ca.crt");
    const restore = await host.silence();
    const { state, hosts } = await rotateAuthority({ keys });
    expect({ state, error: hosts[0]!.error }).toMatchObject({
      state: "prepared",
      error: expect.stringMatching(/does not answer/) as string,
    });
    const finished = await rotateAuthority({ finish: true, keys });
    expect(finished).toMatchObject({ state: "prepared", hosts: [{ name: "edge" }] });
    await restore();
    expect(await content("ca.crt")).toBe(before);
    expect(await accepted()).toBe(1);
  });

  it("has hosts accept both CAs, as often as it is repeated, and clients of the old one go on", async () => {
    const next = await content("ca.next.crt");
    for (let times = 0; times < 2; times++) {
      expect(await rotateAuthority({ keys })).toEqual({
        state: "prepared",
        hosts: [{ name: "edge", hostId: connection.hostId }],
      });
      expect(await content("ca.next.crt")).toBe(next);
      expect(await accepted()).toBe(2);
    }
  });

  it("goes on where it was cut off, puts the new CA in the place of the old one, and has hosts drop that", async () => {
    const [next, nextKey, before] = [
      await content("ca.next.crt"),
      await content("ca.next.key"),
      await content("ca.crt"),
    ];
    // As if it had been cut off after the first file in use was replaced.
    await copyFile(file("ca.crt"), file("ca.previous.crt"));
    await copyFile(file("ca.key"), file("ca.previous.key"));
    const oldKey = await content("ca.key");
    await copyFile(file("ca.next.crt"), file("ca.crt"));
    await expect(rotateAuthority({ keys })).rejects.toThrow(/cut off at its end; run `palisade keys rotate --finish`/);

    for (let times = 0; times < 2; times++) {
      expect(await rotateAuthority({ finish: true, keys })).toEqual({
        state: "finished",
        hosts: [{ name: "edge", hostId: connection.hostId }],
      });
      expect(await names()).toEqual(
        ["ca.crt", "ca.key", "ca.previous.crt", "ca.previous.key", "client.crt", "client.key"].sort(),
      );
      expect([await content("ca.crt"), await content("ca.key")]).toEqual([next, nextKey]);
      expect([await content("ca.previous.crt"), await content("ca.previous.key")]).toEqual([before, oldKey]);
      // The state still names the old CA; the one that took its place is trusted instead.
      expect(await facts(connection)).toMatchObject({ hostId: connection.hostId });
      expect(await accepted()).toBe(1);
      expect(await authorityBeside(connection)).toEqual({ certificateFile: file("ca.crt"), keyFile: file("ca.key") });
      expect(await renewClientIdentity(connection)).toBe("valid");
    }
    // Neither the old client nor a client that trusts the old CA only gets through.
    await expect(facts({ ...oldClient, certificateAuthority: next })).rejects.toThrow();
    await expect(facts(oldClient)).rejects.toMatchObject({ name: "ForeignHostError" });
    await expect(facts({ ...connection, certificateAuthority: next })).resolves.toBeDefined();
  });

  it("begins another rotation once the state was refreshed", async () => {
    const unchanged = await content("ca.crt");
    for (const finish of [false, true]) {
      const { state, hosts } = await rotateAuthority({ finish, keys });
      expect(state).toBe("prepared");
      expect(hosts[0]!.error).toMatch(/names the CA of before the last rotation; run `pulumi up --refresh` first/);
    }
    expect(await content("ca.crt")).toBe(unchanged);
    connection.certificateAuthority = unchanged;
    await writeState();
    expect((await rotateAuthority({ keys })).hosts[0]!.error).toBeUndefined();
    const finished = await rotateAuthority({ finish: true, keys });
    expect(finished).toEqual({ state: "finished", hosts: [{ name: "edge", hostId: connection.hostId }] });
    expect(await content("ca.crt")).not.toBe(unchanged);
    expect(await accepted()).toBe(1);
  });
});
