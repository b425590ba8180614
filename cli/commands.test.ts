import { chmodSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, afterEach, beforeAll, beforeEach, describe, expect, it, vi } from "vitest";
import { withAgent } from "./agent.js";
import { run } from "./commands.js";
import { initKeys } from "./keys.js";
import type { Connection } from "./stack-state.js";
import { startHost } from "./testing/host.js";

let folder: string;
let connection: Connection;
let close: () => Promise<void>;
let stdout: string;
let stderr: string;

beforeAll(async () => {
  folder = mkdtempSync(path.join(tmpdir(), "palisade-cli-"));
  await initKeys(path.join(folder, "keys"));
  ({ connection, close } = await startHost(path.join(folder, "keys"), "0123456789abcdef"));
});
afterAll(async () => {
  await close();
  rmSync(folder, { recursive: true, force: true });
});
beforeEach(() => {
  stdout = stderr = "";
  vi.spyOn(process.stdout, "write").mockImplementation((text) => ((stdout += String(text)), true));
  vi.spyOn(process.stderr, "write").mockImplementation((text) => ((stderr += String(text)), true));
  vi.stubEnv("PALISADE_HOME", path.join(folder, "home"));
  vi.stubEnv("PULUMI_STACK", "");
  vi.stubEnv("STACK", "");
});
afterEach(() => {
  vi.restoreAllMocks();
  vi.unstubAllEnvs();
});

/** A `pulumi` that answers `stack export` with this state. */
function stubPulumi(hostConnection: Connection = connection, ...more: object[]): void {
  const urn = (type: string, name: string) => `urn:pulumi:local::palisade::${type}::${name}`;
  const serialLog = path.join(folder, "serial.log");
  writeFileSync(serialLog, "line 1\n\u001b[2Jline 2\nline 3\n");
  const resources = [
    {
      urn: urn("palisade:index:NestedHost$palisade:index:VirtualMachine", "edge-machine"),
      type: "palisade:index:VirtualMachine",
      parent: urn("palisade:index:NestedHost", "edge"),
      outputs: { connection: hostConnection, accelerator: "tcg", serialLog },
    },
    {
      urn: urn("palisade:index:GroupDeployment", "web-deployment"),
      type: "palisade:index:GroupDeployment",
      // From the group's last update; the host has moved since.
      outputs: { name: "web", host: { ...hostConnection, endpoint: "https://127.0.0.1:1" } },
    },
    {
      urn: urn("palisade:index:VirtualMachine", "old"),
      type: "palisade:index:VirtualMachine",
      delete: true,
      outputs: { connection: hostConnection },
    },
    ...more,
  ];
  const bin = path.join(folder, "bin");
  mkdirSync(bin, { recursive: true });
  writeFileSync(path.join(folder, "export.json"), JSON.stringify({ version: 3, deployment: { resources } }));
  const script = `#!/bin/sh
[ "$*" = "stack export --stack local --non-interactive" ] || { echo "error: no stack named '$4' found" >&2; exit 255; }
cat '${folder}/export.json'
`;
  writeFileSync(path.join(bin, "pulumi"), script);
  chmodSync(path.join(bin, "pulumi"), 0o755);
  vi.stubEnv("PATH", `${bin}:${process.env["PATH"]}`);
  vi.stubEnv("PULUMI_BACKEND_URL", "file:///nowhere");
}

/** A host on bare metal; without outputs while it is being installed. */
const bareMetal = (name: string, outputs: object = {}) => ({
  urn: `urn:pulumi:local::palisade::palisade:index:BareMetalHost::${name}`,
  type: "palisade:index:BareMetalHost",
  outputs,
});

describe("palisade", () => {
  it("builds the tools of patches with their pins, links them, and says what belongs on PATH", async () => {
    const target = path.join(folder, "patch-tools");
    // Takes the place of the Go compiler, which would take minutes.
    const go = path.join(folder, "go");
    mkdirSync(go);
    const script = `#!/bin/sh
case "$1" in
  version) echo "go version go1.26.0 linux/amd64" ;;
  env) echo linux amd64 v1 ;;
  build) for folder; do [ "$before" = -o ] && out=$folder; before=$folder; done
    for name in trivy copacetic buildkitd vulndb; do echo "$PWD" > "$out/$name"; done ;;
esac
`;
    writeFileSync(path.join(go, "go"), script);
    chmodSync(path.join(go, "go"), 0o755);
    vi.stubEnv("PATH", `${go}:${process.env["PATH"]}`);
    vi.stubEnv("PALISADE_CACHE", path.join(folder, "cache"));
    expect(await run(["patch-tools", "--directory", target])).toBe(0);
    expect(stdout).toBe(`export PATH="${target}:$PATH"\n`);
    for (const [command, module] of Object.entries({
      trivy: "trivy",
      copa: "copa",
      buildkitd: "buildkit",
      vulndb: "vulndb",
    })) {
      expect(readFileSync(path.join(target, command), "utf8").trim()).toMatch(new RegExp(`/tools/${module}$`));
    }
  });

  it("says that Go is lacking", async () => {
    vi.stubEnv("PATH", path.join(folder, "nothing"));
    await expect(run(["patch-tools"])).rejects.toThrow(/^needs Go on PATH, version 1\.26 or newer/);
  });

  it("makes keys, and says which", async () => {
    const directory = path.join(folder, "more-keys");
    expect(await run(["keys", "init", "--directory", directory, "-o", "json"])).toBe(0);
    const report = JSON.parse(stdout);
    expect(report.directory).toBe(directory);
    expect(report.made).toContain("more-keys/hosts/ca.key");
    stdout = "";
    expect(await run(["keys", "init", "--directory", directory])).toBe(0);
    expect(stdout).toBe(`keys in ${directory}: all there, nothing changed\n`);
  });

  it("makes a client certificate, and reaches hosts with the one that the environment names", async () => {
    const reader = path.join(folder, "reader");
    const keys = ["--keys", path.join(folder, "keys")];
    expect(await run(["keys", "client", reader, "--role", "reader", "--days", "2", ...keys, "-o", "json"])).toBe(0);
    const report = JSON.parse(stdout);
    expect(report).toMatchObject({ directory: reader, role: "reader" });
    expect(Date.parse(report.notAfter)).toBeGreaterThan(Date.now());
    stdout = "";
    expect(await run(["keys", "client", reader, "--role", "reader", ...keys])).toBe(0);
    expect(stdout).toMatch(/^client reader in \S+: serial number [0-9a-f]+, until \d{4}-/);

    // The client of the connection is not there.
    stubPulumi({ ...connection, clientCertificateFile: path.join(folder, "no.crt") });
    expect(await run(["status"])).toBe(1);
    vi.stubEnv("PALISADE_CLIENT", reader);
    expect(await run(["status"])).toBe(0);
  });

  it("revokes a client certificate, records it, and tells the stack's hosts", async () => {
    const keysFolder = path.join(folder, "keys");
    const keys = ["--keys", keysFolder];
    const lost = path.join(folder, "lost");
    await run(["keys", "client", lost, "--role", "reader", ...keys, "-o", "json"]);
    const { serialNumber } = JSON.parse(stdout);
    const elsewhere = { ...connection, hostId: "fedcba9876543210", endpoint: "https://127.0.0.1:1" };
    stubPulumi(connection, bareMetal("far", { connection: elsewhere }));
    for (const argument of [
      ["--certificate", path.join(lost, "client.crt")],
      ["--serial", serialNumber.toUpperCase()],
    ]) {
      stdout = "";
      expect(await run(["keys", "revoke", ...argument, ...keys, "-o", "json"])).toBe(1);
      const report = JSON.parse(stdout);
      expect(report).toMatchObject({ serialNumber, hosts: [{ name: "edge" }, { name: "far" }] });
      expect(report.hosts[0].error).toBeUndefined();
      expect(report.hosts[1].error).toMatch(/does not answer/);
    }
    const recorded = JSON.parse(readFileSync(path.join(keysFolder, "hosts/ca.revoked.json"), "utf8"));
    expect(Object.keys(recorded.revoked)).toEqual([serialNumber]);
    stubPulumi();
    stdout = "";
    expect(await run(["keys", "revoke", "--serial", serialNumber, ...keys])).toBe(0);
    expect(stdout).toBe(
      `${serialNumber} is revoked; new hosts refuse it from their first contact on\nhost edge: refuses it\n`,
    );
    await withAgent(connection, async ({ hosts }) => {
      expect((await hosts.getHost({})).revokedSerialNumbers).toEqual([serialNumber]);
    });
  });

  it("does not revoke the certificate that it shows to hosts, or one of another CA", async () => {
    stubPulumi();
    const keysFolder = path.join(folder, "keys");
    const keys = ["--keys", keysFolder];
    const own = ["--certificate", path.join(keysFolder, "hosts/client.crt")];
    await expect(run(["keys", "revoke", ...own, ...keys])).rejects.toThrow(
      /is the certificate with which hosts are reached .*client\.crt.*client\.key away, run `palisade keys init`/,
    );
    await initKeys(path.join(folder, "foreign"));
    const foreign = ["--certificate", path.join(folder, "foreign/hosts/client.crt")];
    await expect(run(["keys", "revoke", ...foreign, ...keys])).rejects.toThrow(/--certificate: is of another CA than/);
    const authority = ["--certificate", path.join(keysFolder, "hosts/ca.crt")];
    await expect(run(["keys", "revoke", ...authority, ...keys])).rejects.toThrow(/--certificate: is no client's/);
    const recorded = JSON.parse(readFileSync(path.join(keysFolder, "hosts/ca.revoked.json"), "utf8"));
    expect(Object.keys(recorded.revoked)).toHaveLength(1);
  });

  it("records a revocation though the stack cannot be read, and says that no host was told", async () => {
    const keysFolder = path.join(folder, "alone");
    await initKeys(keysFolder);
    vi.stubEnv("PATH", path.join(folder, "nothing"));
    // Where this clone has a pulumi, it has no such stack.
    await expect(run(["keys", "revoke", "--serial", "0A:1b", "--keys", keysFolder, "--stack", "none"])).rejects.toThrow(
      /^a1b is recorded as revoked, and no host was told: /,
    );
    expect(readFileSync(path.join(keysFolder, "hosts/ca.revoked.json"), "utf8")).toContain('"a1b"');
  });

  it("destroys nothing where there is nothing", async () => {
    vi.stubEnv("PALISADE_STATE", path.join(folder, "state"));
    expect(await run(["reap", "-o", "json"])).toBe(0);
    expect(JSON.parse(stdout)).toEqual({ destroyed: [], failed: [] });
  });

  it("prints an environment as JSON", async () => {
    expect(await run(["env", "-o", "json"])).toBe(0);
    const { variables } = JSON.parse(stdout);
    expect(variables).toMatchObject({
      PULUMI_STACK: "local",
      PULUMI_CONFIG_PASSPHRASE: null,
      PULUMI_SKIP_UPDATE_CHECK: "true",
      PULUMI_DISABLE_AUTOMATIC_PLUGIN_ACQUISITION: "true",
    });
  });

  it("prints an environment for a shell, quoted", async () => {
    vi.stubEnv("PALISADE_HOME", "/it's here");
    expect(await run(["env"])).toBe(0);
    expect(stdout).toContain(`export PULUMI_BACKEND_URL='file:///it'\\''s here/backend'\n`);
    expect(stdout).toContain(
      `export PULUMI_CONFIG_PASSPHRASE_FILE='/it'\\''s here/passphrase'\nunset PULUMI_CONFIG_PASSPHRASE\n`,
    );
    expect(stdout).toContain("export PULUMI_STACK='local'\n");
    expect(stdout).toContain("unset PULUMI_OPTION_CONFIG_FILE\n");
    expect(stdout).toMatch(/^export PATH='.*\/bin:/);
  });
});

it("names the stack's configuration where `make up` keeps it", async () => {
  const file = path.join(folder, "home/stacks/palisade.other.yaml");
  mkdirSync(path.dirname(file), { recursive: true });
  writeFileSync(file, "config: {}\n");
  vi.stubEnv("STACK", "other");
  expect(await run(["env"])).toBe(0);
  expect(stdout).toContain("export PULUMI_STACK='other'\n");
  expect(stdout).toContain(`export PULUMI_OPTION_CONFIG_FILE='${file}'\n`);
});

describe("palisade status", () => {
  it("shows a host's facts and groups", async () => {
    stubPulumi();
    expect(await run(["status"])).toBe(0);
    expect(stdout).toBe(`host edge (0123456789abcdef)
  ready             yes
  agent             ${connection.endpoint}, version 1.2.3
  accelerator       tcg
  kernel            6.12.1
  containerd        2.4.2, runtime crun 1.21
  certificate until 2027-01-15T08:00:00.000Z
  Secure Boot       yes
  lockdown          integrity
  root hash         abcd on /
  signature checked yes; unsigned ones refused: yes
  IPE               palisade, audit
  mode              enforce
  sealed layers     2 open, 1 with a checked signature
  SELinux           permissive, default
  GROUP  STATE    RUNNING  RESTARTS  ENDPOINTS
  web    Running  1/2      3         127.0.0.1:8080/TCP
`);
  });

  it("distinguishes a host that does not answer from another host that answers", async () => {
    stubPulumi({ ...connection, endpoint: "https://127.0.0.1:1" });
    expect(await run(["status"])).toBe(1);
    expect(stdout).toMatch(/^host edge: .*127\.0\.0\.1:1/);
    stdout = "";
    stubPulumi({ ...connection, hostId: "another" });
    expect(await run(["status"])).toBe(1);
    expect(stdout).toMatch(/^host edge: .*another/);
  });

  it("prints JSON of a stable shape", async () => {
    stubPulumi();
    expect(await run(["status", "-o", "json"])).toBe(0);
    expect(JSON.parse(stdout)).toEqual({
      hosts: [
        {
          name: "edge",
          kind: "nested",
          hostId: "0123456789abcdef",
          endpoint: connection.endpoint,
          accelerator: "tcg",
          ready: true,
          agentVersion: "1.2.3",
          kernelVersion: "6.12.1",
          containerdVersion: "2.4.2",
          runtimeVersion: "crun 1.21",
          certificateNotAfter: "2027-01-15T08:00:00.000Z",
          integrity: {
            secureBoot: true,
            lockdown: "integrity",
            root: { rootHash: "abcd", mountPoint: "/", signatureVerified: true, signaturesRequired: true },
            ipe: { activePolicy: "palisade", enforcing: false },
            mode: "enforce",
            sealedLayers: { open: 2, verified: 1 },
            selinux: { enabled: true, enforcing: false, policy: "default" },
          },
          groups: [
            {
              name: "web",
              state: "Running",
              isChanging: false,
              containers: 2,
              runningContainers: 1,
              restarts: 3,
              endpoints: [{ address: "127.0.0.1:8080", protocol: "TCP", port: 80 }],
            },
          ],
        },
      ],
    });
  });

  it("shows hosts on bare metal, and one that does not answer beside them", async () => {
    stubPulumi({ ...connection, endpoint: "https://127.0.0.1:1" }, bareMetal("rack", { connection }), bareMetal("new"));
    expect(await run(["status"])).toBe(1);
    expect(stdout).toMatch(/^host edge: .*127\.0\.0\.1:1[^\n]*\nhost rack \(0123456789abcdef\)\n/);
    expect(stdout).toMatch(/ {2}ready {13}yes\n {2}kind {14}bare-metal\n/);
    expect(stdout).not.toContain("accelerator");
    expect(stdout).toMatch(/\nhost new: has not answered yet\n$/);
    stdout = "";
    expect(await run(["status", "--host", "new", "-o", "json"])).toBe(1);
    expect(JSON.parse(stdout)).toEqual({
      hosts: [{ name: "new", kind: "bare-metal", ready: false, error: "has not answered yet" }],
    });
  });

  it("says so when there is no such stack", async () => {
    stubPulumi();
    await expect(run(["status", "--stack", "other"])).rejects.toThrow(
      "stack other cannot be read: error: no stack named",
    );
  });
});

describe("palisade logs", () => {
  it("prints one container's streams, without what a terminal would obey", async () => {
    stubPulumi();
    expect(await run(["logs", "web", "nginx"])).toBe(0);
    expect([stdout, stderr]).toEqual(["nginx begins\n", "nginx errs\n"]);
  });

  it("marks the lines of several containers, and takes their last ones", async () => {
    stubPulumi();
    expect(await run(["logs", "web", "--tail", "1"])).toBe(0);
    expect([stdout, stderr]).toEqual(["", "[nginx] nginx errs\n[sidecar] sidecar errs\n"]);
  });

  it.each([
    [["logs", "shop"], "GROUP: 'shop' is no group of the stack; its groups: web"],
    [["logs", "web", "app"], "CONTAINER: 'app' is no container of the group web; its containers: nginx, sidecar"],
    [["logs", "web", "--host", "far"], "--host: 'far' is no host of the stack; its hosts: edge"],
  ])("refuses %j", async (args, message) => {
    stubPulumi();
    await expect(run(args)).rejects.toThrow(message);
  });

  it("prints JSON, a line each", async () => {
    stubPulumi();
    expect(await run(["logs", "web", "nginx", "-o", "json"])).toBe(0);
    const line = { group: "web", container: "nginx" };
    expect(
      stdout
        .trimEnd()
        .split("\n")
        .map((text) => JSON.parse(text) as unknown),
    ).toEqual([
      { ...line, stream: "stdout", line: "nginx begins" },
      { ...line, stream: "stderr", line: "\u001b[31mnginx errs\u001b[0m" },
    ]);
    expect(stderr).toBe("");
  });

  it("wants to know which one, of groups of one name on several hosts", async () => {
    const other = { ...connection, hostId: "fedcba9876543210" };
    const group = {
      urn: "urn:pulumi:local::palisade::palisade:index:GroupDeployment::web-2",
      type: "palisade:index:GroupDeployment",
      outputs: { name: "web", host: other },
    };
    stubPulumi(connection, bareMetal("rack", { connection: other }), group);
    await expect(run(["logs", "web"])).rejects.toThrow("GROUP: 'web' is on several hosts: edge, rack; name one");
    expect(await run(["logs", "web", "nginx", "--host", "edge"])).toBe(0);
    expect(stdout).toBe("nginx begins\n");
  });
});

describe("palisade console", () => {
  it("prints the last lines, or the file's path", async () => {
    stubPulumi();
    expect(await run(["console", "--tail", "2"])).toBe(0);
    expect(stdout).toBe("line 2\nline 3\n");
    stdout = "";
    expect(await run(["console", "edge", "--path"])).toBe(0);
    expect(stdout).toBe(`${path.join(folder, "serial.log")}\n`);
  });

  it("prints JSON", async () => {
    stubPulumi();
    expect(await run(["console", "--tail", "2", "-o", "json"])).toBe(0);
    expect(stdout).toBe('{"host":"edge","line":"\\u001b[2Jline 2"}\n{"host":"edge","line":"line 3"}\n');
    stdout = "";
    expect(await run(["console", "--path", "-o", "json"])).toBe(0);
    expect(JSON.parse(stdout)).toEqual({ host: "edge", path: path.join(folder, "serial.log") });
  });

  it("takes the only host that has one here, and says why another has none", async () => {
    stubPulumi(connection, bareMetal("rack", { connection: { ...connection, hostId: "rack-1" } }));
    expect(await run(["console", "--tail", "1"])).toBe(0);
    expect(stdout).toBe("line 3\n");
    await expect(run(["console", "rack"])).rejects.toThrow(/rack has no serial console on this machine; .*management/);
  });

  it("refuses a host that is not there", async () => {
    stubPulumi();
    await expect(run(["console", "metal"])).rejects.toThrow("'metal' is no host of the stack; its hosts: edge");
  });
});

describe("palisade flows", () => {
  const time = "2027-01-15T08:00:00.500Z";
  const dropped = `${time}  dropped  policy_denied  TCP  default/front (10.88.0.2:40000)  →  [2001:db8::1]:443  from_container, 74 bytes\n`;

  it("shows flows as they happen, safe for a terminal, and what was lost", async () => {
    stubPulumi();
    expect(await run(["flows"])).toBe(0);
    expect(stdout).toBe(
      `${time}  forwarded  TCP  default/front (10.88.0.2:40000)  →  default/web (10.88.0.3:80)  from_container, 74 bytes\n${dropped}`,
    );
    expect(stderr).toBe(
      "palisade flows: host edge: not shown since the start: 7 for which the kernel's ring was full, " +
        "2 for which this command was too slow; the packets went their way\n",
    );
  });

  it("asks hosts on bare metal too, and names those that cannot be asked", async () => {
    const other = { ...connection, hostId: "rack-1" };
    stubPulumi(connection, bareMetal("new"), bareMetal("rack", { connection: other }));
    expect(await run(["flows", "--last", "--host", "edge"])).toBe(0);
    stdout = stderr = "";
    expect(await run(["flows", "--last"])).toBe(1);
    expect(stdout).toMatch(/Z {2}edge {2}forwarded /);
    expect(stderr).toContain("palisade flows: host new: has not answered yet\n");
    expect(stderr).toMatch(/host rack-1 at .*: something else answers there/);
  });

  it("takes --json as it did before -o", async () => {
    stubPulumi();
    expect(await run(["flows", "--last", "--json"])).toBe(0);
    expect(stdout).toMatch(/^\{"time":/);
  });

  it("asks the host for what is wanted", async () => {
    stubPulumi();
    expect(await run(["flows", "front", "--direction", "egress", "--port", "443", "--last"])).toBe(0);
    expect([stdout, stderr]).toEqual([dropped, ""]);
  });

  it("prints JSON, a line each", async () => {
    stubPulumi();
    expect(await run(["flows", "-o", "json", "--since", "5m"])).toBe(0);
    const lines = stdout.trimEnd().split("\n");
    expect(lines.map((line) => JSON.parse(line) as unknown).slice(1)).toEqual([
      {
        ...{ time, verdict: "dropped", reason: "policy_denied", protocol: "TCP" },
        source: { address: "10.88.0.2", port: 40000, endpoint: "default/front", identity: 256 },
        destination: { address: "2001:db8::1", port: 443, identity: 3 },
        ...{ hook: "from_container", length: 74 },
      },
      { host: "edge", lost: { ring: 7, caller: 2 } },
    ]);
  });

  it.each([[["--host", "far"], "--host: 'far' is no host of the stack; its hosts: edge"]])(
    "refuses %j",
    async (args, message) => {
      stubPulumi();
      await expect(run(["flows", ...args])).rejects.toThrow(message);
    },
  );

  it("passes on what the host refuses", async () => {
    stubPulumi();
    expect(await run(["flows", "--reason", "bad_luck"])).toBe(1);
    expect(stderr).toContain('reason: "bad_luck" is none');
  });
});
