import { mkdtempSync, mkdirSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import fc from "fast-check";
import { describe, expect, it } from "vitest";
import { unknown, type Properties, type PropertyDiff, type Value } from "../protocol/resource.js";
import { differences } from "../schema/difference.js";
import { groupDeployment } from "./group-deployment.js";
import { hostImage } from "./host-image.js";
import { registryEndpoint, secretDigest, toGroupSpec, toProperties } from "./group-spec.js";
import { decodeInputs } from "../schema/decode.js";
import { registry } from "./registry.js";
import { virtualMachine } from "./virtual-machine.js";

const brief = (changes: PropertyDiff[]): string[] =>
  changes.map(({ path: at, kind, inputDiff }) => `${at} ${kind}${inputDiff ? "" : " (observed)"}`).sort();

const value: fc.Arbitrary<Value> = fc.letrec<{ value: Value }>((tie) => ({
  value: fc.oneof(
    { depthSize: "small" },
    fc.boolean(),
    fc.integer(),
    fc.string(),
    fc.array(tie("value"), { maxLength: 3 }),
    fc.dictionary(fc.stringMatching(/^[a-z]{1,3}$/), tie("value"), { maxKeys: 3 }),
  ),
})).value;

describe("differences", () => {
  it("finds none between a value and itself", () => {
    fc.assert(fc.property(value, (one) => [...differences("x", one, structuredClone(one))].length === 0));
  });

  it("finds one wherever two values are not equal, and as many the other way round", () => {
    fc.assert(
      fc.property(value, value, (one, other) => {
        const there = [...differences("x", one, other)];
        const back = [...differences("x", other, one)];
        const flip = { add: "delete", delete: "add", update: "update" } as const;
        const emptied = (text: string): boolean => /^(\{\}|\[\])$/.test(text);
        if (
          JSON.stringify(one) !== JSON.stringify(other) &&
          !emptied(JSON.stringify(one)) &&
          !emptied(JSON.stringify(other))
        ) {
          const same = JSON.stringify(sorted(one)) === JSON.stringify(sorted(other));
          if (!same && there.length === 0) return false;
        }
        expect(back.map(({ path: at, change }) => `${at} ${flip[change]}`).sort()).toEqual(
          there.map(({ path: at, change }) => `${at} ${change}`).sort(),
        );
        return true;
      }),
    );
  });

  it("takes what is not known yet for a change", () => {
    expect([...differences("", { a: 1, b: { c: 2 } }, { a: 1, b: unknown })]).toEqual([
      { path: "b", change: "update" },
    ]);
  });

  it("quotes names that are no identifiers", () => {
    expect([...differences("files", { "/etc/x": "1" }, { "/etc/x": "2" })][0]!.path).toBe('files["/etc/x"]');
  });
});

function sorted(one: Value): unknown {
  if (Array.isArray(one)) return one.map(sorted);
  if (typeof one === "object" && one !== null) {
    return Object.fromEntries(
      Object.entries(one)
        .sort(([a], [b]) => (a < b ? -1 : 1))
        .map(([name, child]) => [name, sorted(child as Value)]),
    );
  }
  return one;
}

describe("Registry", () => {
  it("replaces for another port and starts a stopped one", () => {
    const request = { id: "r", oldInputs: { port: 0 }, oldOutputs: { powerState: "running" }, inputs: { port: 0 } };
    expect(brief(registry.diff(request))).toEqual([]);
    expect(brief(registry.diff({ ...request, inputs: { port: 5001 } }))).toEqual(["port update-replace"]);
    expect(brief(registry.diff({ ...request, oldOutputs: { powerState: "stopped" } }))).toEqual([
      "powerState update (observed)",
    ]);
  });
});

describe("VirtualMachine", () => {
  const inputs: Properties = {
    imageDigest: "sha256:1",
    stateDiskId: "disk",
    cpus: 2,
    memoryMiB: 2048,
    acceleration: "auto",
    powerState: "running",
    publishedPorts: [{ port: 80, protocol: "TCP", hostAddress: "127.0.0.1", hostPort: 0 }],
  };
  const oldOutputs: Properties = {
    ...inputs,
    publishedPorts: [{ port: 80, protocol: "TCP", hostAddress: "127.0.0.1", hostPort: 31080 }],
  };
  const diff = (change: Properties, observed: Properties = {}): string[] =>
    brief(
      virtualMachine.diff({
        id: "vm",
        oldInputs: inputs,
        oldOutputs: { ...oldOutputs, ...observed },
        inputs: { ...inputs, ...change },
      }),
    );

  it("sees no change where a free port was asked for and one was chosen", () => expect(diff({})).toEqual([]));
  it("replaces for another image", () =>
    expect(diff({ imageDigest: "sha256:2" })).toEqual(["imageDigest update-replace"]));
  it("replaces for another disk", () => expect(diff({ stateDiskId: unknown })).toEqual(["stateDiskId update-replace"]));
  it("updates memory", () => expect(diff({ memoryMiB: 4096 })).toEqual(["memoryMiB update"]));
  it("updates a published port", () => expect(diff({ publishedPorts: [] })).toEqual(["publishedPorts[0] delete"]));
  it("notices that it was stopped", () =>
    expect(diff({}, { powerState: "stopped" })).toEqual(["powerState update (observed)"]));
});

describe("GroupDeployment", () => {
  const keys = mkdtempSync(path.join(tmpdir(), "palisade-keys-"));
  mkdirSync(path.join(keys, "hosts"));
  writeFileSync(path.join(keys, "hmac.key"), "cd".repeat(32));
  const host: Properties = {
    hostId: "h1",
    endpoint: "https://127.0.0.1:1",
    certificateAuthority: "pem",
    clientCertificateFile: path.join(keys, "hosts/client.crt"),
    clientKeyFile: path.join(keys, "hosts/client.key"),
    loopbackAddress: "10.0.2.2",
    publishedPorts: [],
  };
  const image = `127.0.0.1:5000/web@sha256:${"a".repeat(64)}`;
  const inputs: Properties = {
    host,
    name: "web",
    restartPolicy: "Always",
    containers: [
      {
        name: "nginx",
        image,
        environmentVariables: [
          { name: "OPEN", value: "1" },
          { name: "TOKEN", secureValue: "canary" },
        ],
        resources: { requests: { cpu: 0.5, memoryInGB: 0.3 } },
      },
    ],
    ports: [{ port: 80, protocol: "TCP" }],
    imageRegistryCredentials: [{ server: "127.0.0.1:5000", username: "u", password: "p" }],
  };
  const spec = toGroupSpec(decodeInputs("palisade:index:GroupDeployment", inputs));
  const oldOutputs: Properties = {
    ...toProperties(spec),
    host,
    observedContainers: [{ name: "nginx", state: "Running", restartCount: 0, image }],
    secretDigest: secretDigest(spec, host as never),
  };
  const diff = (change: Properties, observed: Properties = {}, oldInputs: Properties = inputs): string[] =>
    brief(
      groupDeployment.diff({
        id: "h1/web",
        oldInputs,
        oldOutputs: { ...oldOutputs, ...observed },
        inputs: { ...inputs, ...change },
      }),
    );

  it("sees no change in the same group", () => expect(diff({})).toEqual([]));
  it("sees no change after an import, which knows no secret", () => {
    expect(diff({}, {}, { ...toProperties(spec), host })).toEqual([]);
  });
  it("sees a changed secret, and shows its place and not its value", () => {
    const changes = diff({
      imageRegistryCredentials: [{ server: "127.0.0.1:5000", username: "u", password: "other" }],
    });
    expect(changes).toEqual(["imageRegistryCredentials[0].password update"]);
  });
  it("sees a secret changed on the host", () =>
    expect(diff({}, { secretDigest: "another" })).toEqual(["secretDigest update (observed)"]));
  it("replaces for another host, updates for another endpoint", () => {
    expect(diff({ host: { ...host, hostId: "h2" } })).toEqual(["host.hostId update-replace"]);
    expect(diff({ host: { ...host, endpoint: "https://127.0.0.1:2" } })).toEqual(["host.endpoint update"]);
    expect(diff({ host: unknown })).toEqual(["host.hostId update-replace"]);
    expect(diff({ host: { ...host, publishedPorts: unknown } })).toEqual(["host.publishedPorts update"]);
  });
  it("names the container that stopped", () =>
    expect(diff({}, { observedContainers: [{ name: "nginx", state: "Terminated", exitCode: 0 }] })).toEqual([
      "observedContainers[0].state update (observed)",
    ]));
  it("accepts an end that the restart policy accepts", () => {
    const ended = { observedContainers: [{ name: "nginx", state: "Terminated", exitCode: 0 }], restartPolicy: "Never" };
    const never = { ...inputs, restartPolicy: "Never" };
    expect(diff({ restartPolicy: "Never" }, ended, never)).toEqual([]);
    const failed = { ...ended, observedContainers: [{ name: "nginx", state: "Terminated", exitCode: 1 }] };
    expect(diff({ restartPolicy: "Never" }, failed, never)).toEqual(["observedContainers[0].state update (observed)"]);
  });
  it("names what was changed on the host by hand", () => {
    const containers = structuredClone(toProperties(spec)["containers"]) as Properties[];
    (containers[0]!["resources"] as { requests: Properties }).requests["cpu"] = 4;
    expect(diff({}, { containers })).toEqual(["containers[0].resources.requests.cpu update (observed)"]);
  });

  it("reaches a registry on this machine's loopback through the host's view of it", () => {
    expect(registryEndpoint("127.0.0.1:5000", "10.0.2.2")).toBe("https://10.0.2.2:5000");
    expect(registryEndpoint("localhost", "10.0.2.2")).toBe("https://10.0.2.2");
    expect(registryEndpoint("127.0.0.1:5000", undefined)).toBe("");
    expect(registryEndpoint("127.example.org", "10.0.2.2")).toBe("");
    expect(registryEndpoint("registry.example.org", "10.0.2.2")).toBe("");
  });
});

describe("a host image", () => {
  it("shows another mode in preview, by both names", () => {
    const build = { keysDirectory: "/keys" };
    const old = { build: { ...build, mode: "enforce" }, inputsHash: "a" };
    const changes = hostImage.diff({
      id: "sha256:00",
      oldInputs: old,
      oldOutputs: { ...old, mode: "enforce" },
      inputs: { build: { ...build, mode: "jit" }, inputsHash: "b" },
    });
    expect(brief(changes)).toEqual(["build.mode update", "inputsHash update"]);
  });
});
