/**
 * What the provider declares, the agent's role `netd` puts into a real kernel: drift there is seen and repaired through
 * the resource.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { existsSync, readlinkSync } from "node:fs";
import { mkdir, mkdtemp, rm, symlink, writeFile } from "node:fs/promises";
import { connect } from "node:http2";
import { createConnection } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { Readable } from "node:stream";
import { afterAll, beforeAll, describe, expect, it, vi } from "vitest";
import { run as palisade } from "../../../cli/commands.js";
import { initKeys } from "../../../cli/keys.js";
import { startHost } from "../../../cli/testing/host.js";
import { compileNetworkPolicies } from "../../../components/policy/compile.js";
import { HostAgentClient } from "../../../provider/local/agent-client/client.js";
import type { Backends, HostConnection } from "../../../provider/backends/index.js";
import { run } from "../../../provider/system/command.js";
import type { Properties } from "../../../provider/protocol/resource.js";
import { networkPolicy } from "../../../provider/resources/network-policy.js";
import { operation } from "./subject.js";

const hostId = "0123456789abcdef";
const isRoot = process.getuid?.() === 0;

/** The role as a process, in a network and with a BPF file system of its own. */
async function startRole(agent: string, folder: string): Promise<ChildProcess> {
  const socket = path.join(folder, "s");
  const pins = path.join(folder, "bpf");
  await mkdir(pins);
  const role = `mount -t bpf bpf "$1" && ip link set lo up && exec "$2" netd -socket "$3" -socket-group "" -state "$4" -pins "$1"`;
  const child = spawn(
    "unshare",
    ["--net", "--mount", "sh", "-c", role, "sh", pins, agent, socket, path.join(folder, "state")],
    { stdio: ["ignore", "ignore", "inherit"] },
  );
  for (let waited = 0; !existsSync(socket); waited += 20) {
    if (child.exitCode !== null || waited > 30_000) throw new Error("the role netd does not serve");
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  return child;
}

describe.skipIf(!isRoot)("a network policy", () => {
  let folder: string;
  let role: ChildProcess;
  let host: Awaited<ReturnType<typeof startHost>>;
  let backends: Backends;

  const inputs = (port: number): Properties => {
    const policy = compileNetworkPolicies({
      endpoints: [
        { name: "web", labels: { app: "web" }, ports: [{ name: "ping", port }] },
        { name: "front", labels: { app: "front" } },
      ],
      networkPolicies: [
        {
          name: "web",
          groupSelector: { matchLabels: { app: "web" } },
          ingress: [
            { from: [{ groupSelector: { matchLabels: { app: "front" } } }], ports: [{ port: "ping" }] },
            { from: [{ ipBlock: { cidr: "192.0.2.0/24", except: ["192.0.2.128/25"] } }] },
          ],
          egress: [{ to: [{ entities: ["host"] }], ports: [{ protocol: "ICMP", icmpType: 8, icmpCode: 0 }] }],
        },
      ],
    });
    return JSON.parse(JSON.stringify({ host: host.connection, policy })) as Properties;
  };
  const context = () => ({ backends });
  const hash = (of: Properties) => (of["policy"] as Properties)["hash"];
  const read = async (state: { inputs: Properties; outputs: Properties }) =>
    networkPolicy.read(context(), {
      id: hostId,
      inputs: state.inputs,
      outputs: state.outputs,
      op: operation("network"),
    });
  const diff = (state: { inputs: Properties; outputs: Properties }, next: Properties) =>
    networkPolicy
      .diff({ id: hostId, oldInputs: state.inputs, oldOutputs: state.outputs, inputs: next })
      .map(({ path: changed }) => changed);

  const containers: ChildProcess[] = [];

  /** A network namespace that is connected by the CNI plugin, as containerd does it for a group. */
  async function connectGroup(name: string): Promise<{ pid: string; address: string }> {
    const container = spawn("unshare", ["--net", "sleep", "600"], { stdio: "ignore" });
    containers.push(container);
    const pid = String(container.pid);
    const own = readlinkSync("/proc/self/ns/net");
    await vi.waitFor(() => expect(readlinkSync(`/proc/${pid}/ns/net`)).not.toBe(own), 5000);
    const environment = {
      ...{
        CNI_COMMAND: "ADD",
        CNI_CONTAINERID: name,
        CNI_NETNS: `/proc/${pid}/ns/net`,
        CNI_IFNAME: "eth0",
        CNI_PATH: "/",
      },
      CNI_ARGS: `IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=${name}`,
    };
    const result = await run(
      "nsenter",
      [
        ...["-t", String(role.pid), "--net", "--mount", "env"],
        ...Object.entries(environment).map(([key, value]) => `${key}=${value}`),
        path.join(folder, "palisade-cni"),
      ],
      {
        input: Readable.from([
          Buffer.from(
            JSON.stringify({ cniVersion: "1.0.0", name: "test", type: "palisade-cni", socket: path.join(folder, "s") }),
          ),
        ]),
      },
    );
    const { ips } = JSON.parse(result) as { ips: { address: string }[] };
    return { pid, address: ips[0]!.address.replace(/\/.*/, "") };
  }

  /** A folder with a `pulumi` that answers `stack export` with a stack of this host. */
  async function pulumiOf(connection: object): Promise<string> {
    const bin = path.join(folder, "bin");
    await mkdir(bin);
    const urn = "urn:pulumi:local::palisade::palisade:index:VirtualMachine::edge";
    const machine = { urn, type: "palisade:index:VirtualMachine", outputs: { connection } };
    await writeFile(path.join(bin, "state.json"), JSON.stringify({ deployment: { resources: [machine] } }));
    await writeFile(path.join(bin, "pulumi"), `#!/bin/sh\ncat '${bin}/state.json'\n`, { mode: 0o755 });
    return bin;
  }

  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "palisade-netd-"));
    await initKeys(path.join(folder, "keys"));
    const agent = path.join(folder, "palisade-agent");
    await run("go", ["build", "-o", agent, "./hosts/agent"]);
    await symlink(agent, path.join(folder, "palisade-cni"));
    role = await startRole(agent, folder);
    // Stands for the role api: TLS in front, everything else as it is.
    const session = connect("http://role", { createConnection: () => createConnection(path.join(folder, "s")) });
    session.on("error", () => undefined);
    host = await startHost(path.join(folder, "keys"), hostId, (request, response) => {
      const { connection: _connection, ...headers } = request.headers;
      const upstream = session.request({ ...headers, ":authority": "role", ":scheme": "http" });
      upstream.on("response", ({ ":status": status = 502, ...rest }) => response.writeHead(status, rest));
      request.pipe(upstream).pipe(response);
    });
    backends = {
      agents: {
        connect: (connection: HostConnection) => new HostAgentClient(connection),
        find: async () => host.connection,
        isStopped: async () => false,
        removeAtStart: async () => false,
      },
    } as unknown as Backends;
  }, 120_000);
  afterAll(async () => {
    await host?.close();
    for (const child of [...containers, ...(role ? [role] : [])]) {
      const ended = new Promise((resolve) => child.once("exit", resolve));
      child.kill();
      await ended;
    }
    await rm(folder, { recursive: true, force: true });
  });

  it("is what the kernel holds, by its hash, and declaring it again changes nothing", async () => {
    const declared = inputs(80);
    const checked = await networkPolicy.check(context(), { inputs: declared, oldInputs: undefined });
    expect(checked).toEqual({ inputs: declared, failures: [] });
    const create = { inputs: declared, preview: false, op: operation("network") };
    const { id, outputs } = await networkPolicy.create(context(), create);
    expect([id, outputs["policyHash"], outputs["problems"]]).toEqual([hostId, hash(declared), []]);
    const state = { inputs: declared, outputs };
    expect(diff((await read(state))!, declared)).toEqual([]);
    // Imported: nothing but the host's id is known.
    const imported = await networkPolicy.read(context(), {
      ...{ id: hostId, inputs: undefined, outputs: undefined },
      op: operation("network"),
    });
    expect(diff(imported!, declared)).toEqual([]);
    await expect(networkPolicy.create(context(), { ...create, inputs: inputs(81) })).rejects.toThrow(
      /another network policy/,
    );
  });

  it("that was changed after it was compiled is refused in preview, by the field", async () => {
    const wrong = inputs(80);
    (wrong["policy"] as { endpoints: { identity: number }[] }).endpoints[0]!.identity = 300;
    const state = { inputs: inputs(80), outputs: {} };
    await expect(
      networkPolicy.update(context(), {
        ...{ id: hostId, oldInputs: state.inputs, oldOutputs: state.outputs, inputs: wrong, preview: true },
        op: operation("network"),
      }),
    ).rejects.toThrow(/policy\.hash/);
  });

  it("whose maps were damaged shows drift, and an update repairs them", async () => {
    const declared = inputs(80);
    const before = (await read({ inputs: declared, outputs: {} }))!;
    // In the mount namespace of the role.
    await rm(path.join(`/proc/${role.pid}/root`, folder, "bpf/v1/maps/flows"));
    const drifted = (await read(before))!;
    expect(drifted.outputs["problems"]).toEqual(["map flows: its pin is gone"]);
    expect(diff(drifted, declared)).toEqual(["problems"]);
    const op = operation("network");
    const repaired = await networkPolicy.update(context(), {
      ...{ id: hostId, oldInputs: declared, oldOutputs: drifted.outputs, inputs: declared, preview: false, op },
    });
    expect(op.lines).toContain("info: repaired: map flows: its pin is gone");
    expect(diff({ inputs: declared, outputs: repaired }, declared)).toEqual([]);
  });

  it("shows its denials in `palisade flows`", async () => {
    const [front, web] = [await connectGroup("front"), await connectGroup("web")];
    const send = (port: number) =>
      run("nsenter", ["-t", front.pid, "--net", "bash", "-c", `echo ping >/dev/udp/${web.address}/${port}`]);
    await send(81);
    vi.stubEnv("PATH", `${await pulumiOf(host.connection)}:${process.env["PATH"]}`);
    vi.stubEnv("PULUMI_BACKEND_URL", "file:///nowhere");
    let output = "";
    const write = vi.spyOn(process.stdout, "write").mockImplementation((text) => ((output += String(text)), true));
    try {
      await vi.waitFor(async () => {
        output = "";
        expect(await palisade(["flows", "web", "--verdict", "dropped", "--port", "81", "--last", "--json"])).toBe(0);
        expect(output).not.toBe("");
      }, 5000);
    } finally {
      write.mockRestore();
      vi.unstubAllEnvs();
    }
    expect(JSON.parse(output)).toMatchObject({
      ...{ verdict: "dropped", reason: "policy_default_denied", protocol: "UDP" },
      source: { endpoint: "default/front", address: front.address },
      destination: { endpoint: "default/web", address: web.address, port: 81 },
    });
  });

  it("is gone when it is deleted", async () => {
    const declared = inputs(80);
    await networkPolicy.delete(context(), { id: hostId, inputs: declared, outputs: {}, op: operation("network") });
    expect(await read({ inputs: declared, outputs: {} })).toBeUndefined();
  });
});
