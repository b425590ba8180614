import { chmodSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, describe, expect, it, vi } from "vitest";
import { findHosts, parseExport, readStack } from "./stack-state.js";

const connection = (hostId: string) => ({
  hostId,
  endpoint: `https://${hostId}.example:8443`,
  certificateAuthority: "ca",
  clientCertificateFile: "/c",
  clientKeyFile: "/k",
  publishedPorts: [],
});
const urn = (type: string, name: string) => `urn:pulumi:local::shop::${type}::${name}`;
const machine = (name: string, outputs: object = { connection: connection(name), serialLog: `/${name}.log` }) => ({
  urn: urn("palisade:index:NestedHost$palisade:index:VirtualMachine", `${name}-machine`),
  type: "palisade:index:VirtualMachine",
  parent: urn("palisade:index:NestedHost", name),
  outputs,
});
const metal = (name: string, outputs: object = { connection: connection(name) }) => ({
  urn: urn("palisade:index:BareMetalHost", name),
  type: "palisade:index:BareMetalHost",
  outputs,
});
const group = (name: string, host: object) => ({
  urn: urn("palisade:index:GroupDeployment", name),
  type: "palisade:index:GroupDeployment",
  outputs: { name, host },
});
const state = (...resources: object[]) => JSON.stringify({ version: 3, deployment: { resources } });
const secret = (value: unknown, key: "ciphertext" | "plaintext") => ({
  "4dabf18193072939515e22adb298388d": "1b47061264138c4ac30d75fd1eb44270",
  [key]: key === "plaintext" ? JSON.stringify(value) : "v1:abc",
});

describe("the hosts of a stack", () => {
  it("are virtual machines, machines of their own, and those of other stacks that it has groups on", () => {
    const { hosts, groups } = parseExport(
      state(machine("edge"), metal("rack"), group("web", connection("rack")), group("api", connection("far"))),
    );
    expect(hosts.map(({ kind, name }) => [kind, name])).toEqual([
      ["nested", "edge"],
      ["bare-metal", "rack"],
      ["external", "far"],
    ]);
    expect(groups.map(({ name, hostId }) => [name, hostId])).toEqual([
      ["web", "rack"],
      ["api", "far"],
    ]);
  });

  it.each([{}, { connection: {} }, { connection: null }, { connection: { hostId: "" } }])(
    "have no connection before they have answered: %j",
    (outputs) => {
      const { hosts } = parseExport(state(machine("edge", outputs), metal("rack", outputs), group("web", {})));
      expect(hosts.map(({ name, connection: known }) => [name, known])).toEqual([
        ["edge", undefined],
        ["rack", undefined],
      ]);
    },
  );

  it("are found by name and by id; a name may be that of several", () => {
    const { hosts } = parseExport(state(machine("edge"), metal("edge", { connection: connection("rack-1") })));
    expect(findHosts(hosts, "edge", "--host")).toHaveLength(2);
    expect(findHosts(hosts, "rack-1", "--host").map(({ kind }) => kind)).toEqual(["bare-metal"]);
    expect(() => findHosts(hosts, "far", "--host")).toThrow(
      "--host: 'far' is no host of the stack; its hosts: edge, edge",
    );
    expect(() => findHosts([], undefined, "--host")).toThrow("the stack has no hosts");
  });
});

it.each(['{"deployment":null}', '{"deployment":{}}', '{"deployment":{"resources":null}}'])(
  "an export of %j has nothing",
  (text) => expect(parseExport(text)).toEqual({ hosts: [], groups: [] }),
);

it.each(["", "null", "[]", '{"deployment":{"resources":{}}}', '{"deployment":{"resources":[null]}}', "<html>"])(
  "an export of %j is refused",
  (text) => expect(() => parseExport(text)).toThrow("pulumi stack export: "),
);

describe("how a host is reached may be a secret of the stack", () => {
  afterEach(() => vi.unstubAllEnvs());

  it("then Pulumi is asked for it in clear, and only then", async () => {
    const folder = mkdtempSync(path.join(tmpdir(), "palisade-state-"));
    try {
      for (const key of ["ciphertext", "plaintext"] as const) {
        const text = state(metal("rack", { connection: secret(connection("rack"), key) }));
        writeFileSync(path.join(folder, key), text);
      }
      const script = `#!/bin/sh
echo "$*" >> '${folder}/asked'
case "$*" in *--show-secrets) cat '${folder}/plaintext' ;; *) cat '${folder}/ciphertext' ;; esac
`;
      writeFileSync(path.join(folder, "pulumi"), script);
      chmodSync(path.join(folder, "pulumi"), 0o755);
      vi.stubEnv("PATH", `${folder}:${process.env["PATH"]}`);
      vi.stubEnv("PULUMI_BACKEND_URL", "file:///nowhere");
      expect((await readStack("dev")).hosts[0]!.connection).toEqual(connection("rack"));
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  });
});
