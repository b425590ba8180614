/**
 * A table of rows, one per resource, over real gRPC: what Diff shows for changes and drift, and that read, import and
 * delete agree.
 */
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import type { ServiceError } from "@grpc/grpc-js";
import { DiffResponse, PropertyDiff } from "@pulumi/pulumi/proto/provider_pb.js";
import { afterAll, afterEach, beforeAll, describe, expect, it } from "vitest";
import { createFakeBackends } from "../../test/support/fakes/backends.js";
import type { Kind } from "../../test/support/fakes/world.js";
import type { HostConnection } from "../backends/index.js";
import { unknown, type Properties, type Value } from "../protocol/resource.js";
import { initFailure } from "../protocol/testing.js";
import { Fixture, makeNetworkPolicy, type Made, type State } from "./testing.js";

/** A vulnerability database in another place than the default one. */
const database = mkdtempSync(path.join(tmpdir(), "palisade-vulndb-"));
mkdirSync(path.join(database, "db"));
writeFileSync(path.join(database, "db/metadata.json"), "{}");
afterAll(() => rmSync(database, { recursive: true, force: true }));

interface Row {
  name: string;
  kind: Kind;
  /** A change of the program, and the paths that Diff shows for it; a path that replaces ends in `!`. */
  changes: [(given: Properties) => Properties, string[]][];
  /** A change behind the provider's back, and what Diff shows after the next Read. */
  drift?: [Record<string, unknown>, string[]];
  /** Outputs that are not known in the preview of a create. */
  unknowns: string[];
  /** Its id is the host's, so no other id can be proven gone. */
  host?: boolean;
}

const set =
  (name: string, value: Value) =>
  (given: Properties): Properties => ({ ...given, [name]: value });
const container =
  (change: Properties) =>
  (given: Properties): Properties => ({
    ...given,
    containers: [{ ...((given["containers"] as Properties[])[0] as Properties), ...change }],
  });
const host =
  (change: Properties) =>
  (given: Properties): Properties => ({ ...given, host: { ...(given["host"] as Properties), ...change } });

const rows: Row[] = [
  {
    name: "Registry",
    kind: "registries",
    changes: [[set("port", 5001), ["port!"]]],
    drift: [{ powerState: "stopped" }, ["powerState"]],
    unknowns: ["server", "password", "ca"],
  },
  {
    name: "DebianImage",
    kind: "images",
    changes: [
      [set("packages", ["nginx-light", "curl"]), ["packages[1]"]],
      [set("files", { "/etc/motd": "hello" }), ["files"]],
      [set("tag", "2"), ["tag"]],
    ],
    unknowns: ["digest", "reference"],
  },
  {
    name: "PatchedImage",
    kind: "patches",
    changes: [
      [set("digest", `sha256:${"b".repeat(64)}`), ["digest"]],
      [set("repository", "web/other"), ["repository"]],
      [set("registry", { server: "registry.example" }), ["registry.server"]],
      [set("tag", "stable"), ["tag"]],
      [set("triggers", ["2026-11-24"]), ["triggers"]],
      // The paths of key and database do not change the image.
      [set("database", database), []],
      [set("imageSigner", { certificateFile: "/k.crt", keyFile: "/k.key" }), []],
    ],
    unknowns: ["patchedDigest", "reference", "fixableBefore", "fixableAfter", "scannedAt", "vexReference"],
  },
  {
    name: "SealedImage",
    kind: "seals",
    changes: [
      [set("digest", `sha256:${"b".repeat(64)}`), ["digest"]],
      [set("repository", "web/other"), ["repository"]],
      [set("registry", { server: "registry.example" }), ["registry.server"]],
      [(given) => ({ ...given, layerSigner: given["sealSigner"]! }), ["layerKey"]],
      [(given) => ({ ...given, sealSigner: given["layerSigner"]! }), ["sealKeyId"]],
      [(given) => ({ ...given, imageSigner: given["sealSigner"]! }), ["imageSigner"]],
    ],
    unknowns: ["sealDigest", "rootHashes"],
  },
  {
    name: "HostImage",
    kind: "host-images",
    changes: [],
    // The image was built before, so its outputs are known.
    unknowns: [],
  },
  {
    name: "StateDisk",
    kind: "state-disks",
    changes: [[set("sizeGiB", 16), ["sizeGiB"]]],
    unknowns: ["path"],
  },
  {
    name: "VirtualMachine",
    kind: "virtual-machines",
    changes: [
      [set("cpus", 4), ["cpus"]],
      [set("memoryMiB", 4096), ["memoryMiB"]],
      [set("imageDigest", `sha256:${"b".repeat(64)}`), ["imageDigest!"]],
      [set("stateDiskId", "disk-other"), ["stateDiskId!"]],
      [set("powerState", "stopped"), ["powerState"]],
      [set("publishedPorts", [{ port: 80 }, { port: 443 }]), ["publishedPorts[1]"]],
    ],
    drift: [{ facts: { mode: "audit", ipeEnforcing: false, sealedLayers: 3 } }, ["problems"]],
    unknowns: ["connection", "hostId", "integrity", "expectedIntegrity", "problems"],
  },
  {
    name: "HostIntegrity",
    kind: "virtual-machines",
    changes: [
      [(given) => ({ ...given, expected: { ...(given["expected"] as Properties), mode: "jit" } }), ["expected.mode"]],
      [host({ hostId: "another" }), ["host.hostId!"]],
      [host({ endpoint: "https://127.0.0.1:9443" }), ["host.endpoint"]],
    ],
    unknowns: ["observed", "problems"],
    host: true,
  },
  {
    name: "GroupDeployment",
    kind: "groups",
    changes: [
      [container({ command: ["/usr/sbin/nginx", "-g", "daemon off;"] }), ["containers[0].command"]],
      [
        container({ environmentVariables: [{ name: "TOKEN", secureValue: "another" }] }),
        ["containers[0].environmentVariables[0].secureValue"],
      ],
      [set("name", "shop"), ["name!"]],
      [host({ hostId: "another" }), ["host.hostId!"]],
      [host({ endpoint: "https://127.0.0.1:9443" }), ["host.endpoint"]],
      [set("restartPolicy", "Never"), ["restartPolicy"]],
      [
        ({ containers, ...given }) => ({
          ...given,
          containers: (containers as Properties[]).map(({ image: _pinned, ...one }) => ({
            ...one,
            imageChannel: { repository: "registry.example/web/nginx", channel: "stable" },
          })),
        }),
        ["containers[0].image", "containers[0].imageChannel"],
      ],
    ],
    drift: [{ stopped: true }, ["observedContainers[0].state"]],
    unknowns: ["address", "endpoints", "state"],
  },
  {
    name: "ImagePolicy",
    kind: "image-policies",
    changes: [
      [set("repositories", ["registry.example/web"]), ["repositories[0]"]],
      [set("keys", []), ["keys[0]"]],
      [set("name", "shop"), ["name!"]],
      [host({ hostId: "another" }), ["host.hostId!"]],
      [host({ endpoint: "https://127.0.0.1:9443" }), ["host.endpoint"]],
    ],
    drift: [{ repositories: ["registry.example/*"] }, ["repositories[0]"]],
    unknowns: ["generation"],
  },
  {
    name: "NetworkPolicy",
    kind: "network-policies",
    changes: [
      [
        set("policy", makeNetworkPolicy("default/web", 81)),
        [
          "policy.endpoints[0].ingress.rules[0].portEnd",
          "policy.endpoints[0].ingress.rules[0].portStart",
          "policy.hash",
        ],
      ],
      [host({ hostId: "another" }), ["host.hostId!"]],
      [host({ endpoint: "https://127.0.0.1:9443" }), ["host.endpoint"]],
    ],
    drift: [{ policyHash: "", problems: ["policy: its map entries were changed"] }, ["policyHash", "problems"]],
    unknowns: ["policyHash", "problems", "bypasses"],
    host: true,
  },
];

const replacing = new Set<number>([
  PropertyDiff.Kind.ADD_REPLACE,
  PropertyDiff.Kind.UPDATE_REPLACE,
  PropertyDiff.Kind.DELETE_REPLACE,
]);

function shown(response: DiffResponse): string[] {
  const paths: string[] = [];
  response.getDetaileddiffMap().forEach((diff: PropertyDiff, path: string) => {
    paths.push(replacing.has(diff.getKind()) ? `${path}!` : path);
  });
  return paths.sort();
}

describe("each resource over gRPC", () => {
  const fixture = new Fixture();
  let made: Made[];
  beforeAll(async () => {
    await fixture.start();
    made = await fixture.makeAll();
  });
  afterAll(() => fixture.stop());

  const of = (name: string): Made => made.find((one) => one.type === `palisade:index:${name}`)!;

  /** Read and Diff against what the program gives, as `up` with refresh does. */
  async function observe({ type, given, state }: Made): Promise<{ state: State; paths: string[] }> {
    const read = await fixture.client.read(type, state.id, state);
    const seen = { id: read.id, inputs: read.inputs.properties, outputs: read.outputs.properties };
    const checked = await fixture.client.check(type, given, { olds: seen.inputs });
    expect(checked.failures).toEqual([]);
    return { state: seen, paths: shown(await fixture.client.diff(type, state.id, seen, checked.inputs.properties)) };
  }

  describe.each(rows)("$name", (row) => {
    it("has no difference after it was made, nor after it was read", async () => {
      const one = of(row.name);
      expect(shown(await fixture.client.diff(one.type, one.state.id, one.state, one.state.inputs))).toEqual([]);
      expect((await observe(one)).paths).toEqual([]);
    });

    it("has no difference after an import by id", async () => {
      const one = of(row.name);
      const read = await fixture.client.read(one.type, one.state.id);
      expect(read.id).toBe(one.state.id);
      const seen = { inputs: read.inputs.properties, outputs: read.outputs.properties };
      expect(shown(await fixture.client.diff(one.type, one.state.id, seen, one.state.inputs))).toEqual([]);
    });

    it("previews its creation with what is known", async () => {
      const one = of(row.name);
      const { id, outputs } = await fixture.client.create(one.type, one.state.inputs, { preview: true });
      expect(id).toBe("");
      for (const name of row.unknowns) expect(outputs.properties[name], name).toBe(unknown);
    });

    it.each(row.changes)("shows change %#", async (change, expected) => {
      const one = of(row.name);
      const checked = await fixture.client.check(one.type, change(one.given), { olds: one.state.inputs });
      expect(checked.failures).toEqual([]);
      const response = await fixture.client.diff(one.type, one.state.id, one.state, checked.inputs.properties);
      expect(shown(response)).toEqual(expected);
      expect(response.getDeletebeforereplace()).toBe(expected.some((path) => path.endsWith("!")));
    });

    if (row.drift) {
      const [disturbance, expected] = row.drift;
      it("shows drift, which an update repairs", async () => {
        const one = of(row.name);
        fixture.world.disturb(row.kind, disturbance);
        const drifted = await observe(one);
        expect(drifted.paths).toEqual(expected);
        await fixture.client.update(one.type, one.state.id, drifted.state, one.state.inputs);
        expect((await observe(one)).paths).toEqual([]);
      });
    }

    it.skipIf(row.host)("is absent by an empty id when it is proven gone", async () => {
      const one = of(row.name);
      const id = one.state.id.replace(/[0-9a-f]{8}$/, "00000000").replace(/web$/, "gone");
      expect((await fixture.client.read(one.type, id)).id).toBe("");
    });
  });

  it("keeps write-only secrets out of what it returns", () => {
    const { state } = of("GroupDeployment");
    expect(JSON.stringify(state.outputs)).not.toContain("canary-environment");
    expect(state.outputs["secretDigest"]).toMatch(/^[0-9a-f]{64}$/);
  });

  it("keeps a group whose container fails, with the container's last words", async () => {
    const one = of("GroupDeployment");
    const crashing = container({ command: ["/crash"] })(set("name", "crash")(set("ports", [])(one.given)));
    const error = (await fixture.make("GroupDeployment", crashing).catch((reason: unknown) => reason)) as Error;
    expect(error.message).toMatch(/container nginx.*CrashLoopBackOff.*exit code 1/s);
    expect(error.message).toMatch(/cannot open configuration/);
    expect(error.message).toMatch(/palisade logs/);
    expect(fixture.world.list("groups").some((group) => group.id.endsWith("/crash"))).toBe(true);
  });

  it("fails at once when the host refuses the image, naming image and reason", async () => {
    const one = of("GroupDeployment");
    const image = `registry.example/other@sha256:${"0".repeat(64)}`;
    const refused = container({ image })(set("name", "refused")(set("ports", [])(one.given)));
    const error = (await fixture.make("GroupDeployment", refused).catch((reason: unknown) => reason)) as Error;
    expect(error.message).toContain(`container nginx: ImageRefused: image ${image}: no image policy of this host`);
  });

  it("refuses a port that another group of the host publishes, in preview", async () => {
    const one = of("GroupDeployment");
    const inputs = (await fixture.client.check(one.type, set("name", "second")(one.given))).inputs.properties;
    await expect(fixture.client.create(one.type, inputs, { preview: true })).rejects.toThrow(/port 80/);
  });

  it("takes an equal image policy for its own and refuses another of its name", async () => {
    const { type, state } = of("ImagePolicy");
    const again = await fixture.client.create(type, state.inputs);
    expect(again.id).toBe(state.id);
    const other = set("repositories", ["registry.example/*"])(state.inputs);
    await expect(fixture.client.create(type, other)).rejects.toThrow(
      /other repositories already.*pulumi import palisade:index:ImagePolicy <resource> [0-9a-f]+\/web/s,
    );
  });

  it("takes an equal network policy for its own and refuses another one of the host", async () => {
    const { type, state } = of("NetworkPolicy");
    expect((await fixture.client.create(type, state.inputs)).id).toBe(state.id);
    const other = set("policy", makeNetworkPolicy("default/web", 81))(state.inputs);
    for (const preview of [true, false]) {
      await expect(fixture.client.create(type, other, { preview })).rejects.toThrow(
        /has another network policy already.*pulumi import palisade:index:NetworkPolicy <resource> [0-9a-f]+/s,
      );
    }
  });

  it("reports a network policy that was changed or withdrawn behind its back", async () => {
    const one = of("NetworkPolicy");
    const agent = createFakeBackends(fixture.world).agents.connect(
      one.state.inputs["host"] as unknown as HostConnection,
    );
    const other = makeNetworkPolicy("default/web", 81);
    await agent.applyNetworkPolicy(JSON.stringify(other), String(other["hash"]));
    const changed = await observe(one);
    expect(changed.paths).toContain("policy.hash");
    await fixture.client.update(one.type, one.state.id, changed.state, one.state.inputs);
    expect((await observe(one)).paths).toEqual([]);
    await agent.deleteNetworkPolicy();
    expect((await fixture.client.read(one.type, one.state.id, one.state)).id).toBe("");
    await fixture.client.create(one.type, one.state.inputs);
  });

  it("shows no change of what changes by itself, also against a state of before", async () => {
    const machine = of("VirtualMachine");
    const group = of("GroupDeployment");
    const before = (one: Made) => fixture.client.read(one.type, one.state.id, one.state);
    const [machineBefore, groupBefore] = [await before(machine), await before(group)];
    fixture.world.disturb("virtual-machines", { facts: { sealedLayers: 7 } });
    fixture.world.disturb("groups", { restarts: 3 });
    try {
      expect((await before(machine)).outputs).toEqual(machineBefore.outputs);
      expect((await before(group)).outputs).toEqual(groupBefore.outputs);
      const updated = await fixture.client.update(machine.type, machine.state.id, machine.state, machine.state.inputs);
      expect(updated.properties["integrity"]).toEqual(machineBefore.outputs.properties["integrity"]);
      // At an import there are no earlier values to keep.
      fixture.world.disturb("virtual-machines", { facts: { sealedLayers: 7 } });
      const imported = await fixture.client.read(machine.type, machine.state.id);
      expect(imported.outputs.properties["integrity"]).toMatchObject({ sealedLayers: 7 });
      // A real change is shown.
      fixture.world.disturb("virtual-machines", { facts: { sealedLayers: 7, ipeEnforcing: false } });
      expect((await before(machine)).outputs.properties["integrity"]).toMatchObject({ ipeEnforcing: false });
    } finally {
      fixture.world.disturb("virtual-machines", { facts: {} });
      fixture.world.disturb("groups", { restarts: 0 });
    }
  });

  describe("a host that is not as its image says", () => {
    const wrong = (facts: object) => fixture.world.disturb("virtual-machines", facts as Record<string, unknown>);
    afterEach(() => wrong({ facts: undefined, wrongFacts: undefined, unreachable: undefined }));
    const message = /mode: declared "enforce", observed "audit"; ipeEnforcing: declared true, observed false/;

    it("is no difference to a state of a version that recorded no expectation, before the next read", async () => {
      const { type, state } = of("VirtualMachine");
      const { expectedIntegrity: _expected, problems: _problems, ...outputs } = state.outputs;
      const integrity = { ...(outputs["integrity"] as Properties), mode: "audit" };
      const old = { ...state, outputs: { ...outputs, integrity } };
      expect(shown(await fixture.client.diff(type, state.id, old, state.inputs))).toEqual([]);
      wrong({ facts: { mode: "audit" } });
      expect((await observe({ ...of("VirtualMachine"), state: old })).paths).toEqual(["problems"]);
    });

    it("previews that it is right again, and fails when a restart does not make it so", async () => {
      wrong({ wrongFacts: { mode: "audit", ipeEnforcing: false } });
      const machine = of("VirtualMachine");
      const { state, paths } = await observe(machine);
      expect(paths).toEqual(["problems"]);
      const previewed = await fixture.client.update(machine.type, state.id, state, state.inputs, true);
      expect(previewed.properties).toMatchObject({ integrity: unknown, problems: [] });
      await expect(fixture.client.update(machine.type, state.id, state, state.inputs)).rejects.toThrow(message);
    });

    it("is named by the resource that only compares, whose update fails until the host is right", async () => {
      wrong({ facts: { mode: "audit", ipeEnforcing: false } });
      const one = of("HostIntegrity");
      const { state, paths } = await observe(one);
      expect(paths).toEqual(["problems"]);
      for (const call of [
        () => fixture.client.update(one.type, state.id, state, state.inputs),
        () => fixture.client.create(one.type, state.inputs),
      ]) {
        const failure = await call().catch((error: unknown) => error);
        const { id, reasons } = initFailure(failure as ServiceError)!;
        expect(id).toBe(one.state.id);
        expect(reasons.join("\n")).toMatch(message);
      }
      wrong({ facts: undefined });
      const updated = await fixture.client.update(one.type, state.id, state, state.inputs);
      expect(updated.properties).toEqual(one.state.outputs);
      expect((await observe(one)).paths).toEqual([]);
    });

    it("is drift when it does not answer, and no error until the update, as its machine may be installed anew", async () => {
      const one = of("HostIntegrity");
      wrong({ unreachable: true });
      const { state, paths } = await observe(one);
      expect(paths).toEqual(["problems"]);
      expect(state.outputs["problems"]).toEqual([
        expect.stringMatching(/^the host does not answer: host \S+ at https:/),
      ]);
      const update = () => fixture.client.update(one.type, state.id, state, state.inputs);
      await expect(update()).rejects.toThrow(/does not answer/);
      await expect(fixture.client.read(one.type, one.state.id)).rejects.toThrow(/does not answer/);
      wrong({ unreachable: undefined });
      expect((await update()).properties).toEqual(one.state.outputs);
    });

    it("fails at first contact, and is kept in the state", async () => {
      wrong({ wrongFacts: { mode: "audit", ipeEnforcing: false } });
      const { type, state } = of("VirtualMachine");
      const failure = await fixture.client.create(type, state.inputs).catch((error: unknown) => error);
      const { id, reasons, outputs } = initFailure(failure as ServiceError)!;
      expect(reasons.join("\n")).toMatch(message);
      expect(id).toBe(state.id);
      expect(outputs.properties).toMatchObject({
        integrity: { mode: "audit" },
        expectedIntegrity: { mode: "enforce" },
      });
    });
  });

  describe("a host that is booting", () => {
    const booting = (more: Record<string, unknown> = {}) =>
      fixture.world.disturb("virtual-machines", { bootPolls: 2, ...more });
    const left = () => fixture.world.list("virtual-machines").map(({ observed }) => observed["bootPolls"]);

    it.each(["GroupDeployment", "ImagePolicy", "NetworkPolicy"])("is waited for by each call of %s", async (name) => {
      const { type, state } = of(name);
      const calls: [string, () => Promise<unknown>][] = [
        ["read", async () => expect((await fixture.client.read(type, state.id, state)).id).toBe(state.id)],
        ["preview", () => fixture.client.update(type, state.id, state, state.inputs, true)],
        ["update", () => fixture.client.update(type, state.id, state, state.inputs)],
        ["delete", () => fixture.client.delete(type, state.id, state)],
        ["create", () => fixture.client.create(type, state.inputs)],
      ];
      for (const [call, work] of calls) {
        booting();
        await work();
        expect(left(), call).toEqual([0]);
      }
    });

    it("is given up when it does not come, and one that does not boot at once", async () => {
      const { type, state } = of("GroupDeployment");
      try {
        for (const bootPolls of [2, 0]) {
          booting({ bootPolls, unreachable: true });
          const began = Date.now();
          await expect(fixture.client.read(type, state.id, state)).rejects.toThrow(/does not answer/);
          if (bootPolls === 0) expect(Date.now() - began).toBeLessThan(450);
          expect(left()).toEqual([0]);
        }
      } finally {
        fixture.world.disturb("virtual-machines", { unreachable: false, bootPolls: 0 });
      }
    });
  });

  it("ends each in turn", async () => {
    fixture.world.remove("groups", `${String(of("VirtualMachine").state.outputs["hostId"])}/crash`);
    for (const { type, state } of [...made].reverse()) await fixture.client.delete(type, state.id, state);
    for (const kind of [
      "image-policies",
      "network-policies",
      "groups",
      "virtual-machines",
      "state-disks",
      "registries",
    ] as const) {
      expect(fixture.world.list(kind), kind).toEqual([]);
    }
  });
});
