import * as pulumi from "@pulumi/pulumi";
import { describe, expect, it } from "vitest";
import { answer, connection, digest } from "../internal/testing/answers.js";
import { record, settled, valueOf } from "../internal/testing/recorder.js";
import { NestedHost, type NestedHostArgs } from "./nested-host.js";

const minimal: NestedHostArgs = { image: digest, keysDirectory: "/keys" };

async function registered(args: NestedHostArgs, opts?: pulumi.ComponentResourceOptions, preview = false) {
  const registrations = await record({ answer, preview });
  const host = new NestedHost("edge", args, opts);
  await settled();
  return { registrations, host };
}

describe("NestedHost", () => {
  it("is a component with a state disk and a machine under permanent names", async () => {
    const { registrations } = await registered(minimal);
    expect(registrations.map(({ urn }) => urn)).toEqual([
      "urn:pulumi:test::palisade::palisade:index:NestedHost::edge",
      "urn:pulumi:test::palisade::palisade:index:NestedHost$palisade:index:StateDisk::edge-state",
      "urn:pulumi:test::palisade::palisade:index:NestedHost$palisade:index:VirtualMachine::edge-machine",
    ]);
  });

  it("deletes the machine before it is replaced, and refers to keys by file", async () => {
    const { registrations } = await registered(minimal);
    const machine = registrations[2]!;
    expect(machine.options).toEqual({ version: "0.1.0", deleteBeforeReplace: true });
    expect(machine.inputs).toEqual({
      acceleration: "auto",
      certificateAuthority: { certificateFile: "/keys/hosts/ca.crt", keyFile: "/keys/hosts/ca.key" },
      clientIdentity: { certificateFile: "/keys/hosts/client.crt", keyFile: "/keys/hosts/client.key" },
      cpus: 2,
      forceDestroy: false,
      imageDigest: digest,
      memoryMiB: 2048,
      powerState: "running",
      stateDiskId: "edge-state-id",
    });
  });

  it("takes the operator's keys when none are named", async () => {
    const before = process.env["PALISADE_HOME"];
    process.env["PALISADE_HOME"] = "/operator";
    try {
      const { registrations } = await registered({ image: digest });
      expect(registrations[2]!.inputs["certificateAuthority"]).toEqual({
        certificateFile: "/operator/keys/hosts/ca.crt",
        keyFile: "/operator/keys/hosts/ca.key",
      });
    } finally {
      if (before === undefined) delete process.env["PALISADE_HOME"];
      else process.env["PALISADE_HOME"] = before;
    }
  });

  it("protects the state disk, and it alone, when asked", async () => {
    const { registrations } = await registered({ ...minimal, protectState: true });
    expect(registrations.map(({ options }) => options["protect"] ?? false)).toEqual([false, true, false]);
  });

  it("leaves a protection of the whole component to its children", async () => {
    const { registrations } = await registered({ ...minimal, protectState: false }, { protect: true });
    expect(registrations.map(({ options }) => options["protect"])).toEqual([true, true, true]);
  });

  it("gives the machine's outputs", async () => {
    const { host } = await registered(minimal);
    expect(await valueOf(host.connection)).toEqual(connection);
    expect(await valueOf(host.hostId)).toBe(connection.hostId);
    expect(await valueOf(host.integrity)).toEqual({ secureBoot: true });
    expect(await valueOf(host.serialLog)).toBe("/state/serial.log");
  });

  it("previews with an image that is not built yet", async () => {
    const image = unknown<string>();
    const { registrations, host } = await registered({ ...minimal, image }, undefined, true);
    expect(registrations[2]!.inputs).toMatchObject({ imageDigest: "[unknown]", stateDiskId: "[unknown]" });
    expect(await valueOf(host.connection)).toBeUndefined();
  });

  it.each<[string, unknown, string]>([
    ["image", undefined, "is required"],
    ["image", "trixie", "must be a digest"],
    ["cpus", 0, "must be a whole number from 1 to 64"],
    ["cpus", 1.5, "must be a whole number from 1 to 64"],
    ["cpus", 65, "must be a whole number from 1 to 64"],
    ["memoryMiB", 1023, "must be a whole number from 1024"],
    ["stateDiskGiB", 0, "must be a whole number from 1 to 65536"],
    ["acceleration", "hvf", "must be auto or kvm or tcg"],
    ["powerState", "off", "must be running or stopped"],
    ["forceDestroy", "yes", "must be true or false"],
    ["protectState", "yes", "must be true or false"],
    ["keysDirectory", "", "must be a text that is not empty"],
    ["memory", 2048, "no such argument; there are image"],
  ])("refuses %s = %j", async (field, value, reason) => {
    await record({ answer });
    const args = { ...minimal, [field]: value };
    expect(() => new NestedHost("edge", args)).toThrow(new RegExp(`NestedHost "edge": .*\n  ${field}.*${reason}`, "s"));
  });

  it.each<[string, Partial<NestedHostArgs>]>([
    ['hypervisor.uri = "qemu+ssh://other/system": only', { hypervisor: { uri: "qemu+ssh://other/system" } }],
    ["certificateAuthority.keyFile: is required", { certificateAuthority: { certificateFile: "/ca.crt" } as never }],
    ["publishedPorts[0].port = 0: must be", { publishedPorts: [{ port: 0 }] }],
    ["publishedPorts[0].hostPort = 70000: must be", { publishedPorts: [{ port: 80, hostPort: 70000 }] }],
    [
      'publishedPorts[1].protocol = "SCTP": must be TCP or UDP',
      { publishedPorts: [{ port: 1 }, { port: 80, protocol: "SCTP" }] },
    ],
    [
      "publishedPorts[1].port = 80: is published already by publishedPorts[0]",
      { publishedPorts: [{ port: 80 }, { port: 80 }] },
    ],
    ["publishedPorts[0].name: no such argument", { publishedPorts: [{ port: 80, name: "web" } as never] }],
  ])("refuses %s", async (message, args) => {
    await record({ answer });
    expect(() => new NestedHost("edge", { ...minimal, ...args })).toThrow(message);
  });

  it("names every problem at once", async () => {
    await record({ answer });
    const create = () => new NestedHost("Edge_1", { ...minimal, cpus: 0, memoryMiB: 1 });
    expect(create).toThrow(/3 arguments are not valid\n {2}name = "Edge_1".*\n {2}cpus = 0.*\n {2}memoryMiB = 1/s);
  });

  it("checks a value that becomes known later", async () => {
    const { host } = await registered({ ...minimal, cpus: pulumi.output(2) });
    expect(await valueOf(host.machine.cpus)).toBe(2);
  });
});

function unknown<T>(): pulumi.Output<T> {
  return pulumi.output(pulumi.unknown) as unknown as pulumi.Output<T>;
}
