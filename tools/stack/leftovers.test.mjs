import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { knownIds, owned, remove } from "./leftovers.mjs";

const mine = { backend: "file:///home/backend", project: "palisade", stack: "local" };
let state;
beforeEach(() => {
  state = mkdtempSync(path.join(tmpdir(), "palisade-leftovers-"));
});
afterEach(() => rmSync(state, { recursive: true }));

const thing = (kind, id, changes = {}) => {
  mkdirSync(path.join(state, kind, id), { recursive: true });
  const owner = { ...mine, urn: `urn:${id}`, ...changes };
  writeFileSync(path.join(state, kind, id, "marker.json"), JSON.stringify({ owner }));
};
const ids = () => owned(state, mine).map(({ id }) => id);

describe("owned", () => {
  it("nothing where there is nothing", () => expect(owned(path.join(state, "no"), mine)).toEqual([]));

  it.each([
    ["backend", "file:///other"],
    ["project", "other"],
    ["stack", "other"],
  ])("not of another %s", (key, value) => {
    thing("registries", "registry-1");
    thing("registries", "registry-2", { [key]: value });
    expect(ids()).toEqual(["registry-1"]);
  });

  it("not folders without a marker, nor files", () => {
    mkdirSync(path.join(state, "registries", ".locks"), { recursive: true });
    writeFileSync(path.join(state, "registries", "file"), "");
    expect(ids()).toEqual([]);
  });

  it("machines before their disks", () => {
    thing("state-disks", "disk-1");
    thing("registries", "registry-1");
    thing("virtual-machines", "vm-1");
    expect(ids()).toEqual(["vm-1", "disk-1", "registry-1"]);
  });
});

describe("knownIds", () => {
  it.each([
    ["no state", "", []],
    ["an empty stack", '{"version":3,"deployment":{"manifest":{}}}', []],
    ["resources, of which components have no id", '{"deployment":{"resources":[{"id":"vm-1"},{"urn":"x"}]}}', ["vm-1"]],
  ])("%s", (_name, text, ids) => expect([...knownIds(text)]).toEqual(ids));
});

describe("remove", () => {
  it("asks the backend of each kind, as the owner, with force for machines", async () => {
    thing("virtual-machines", "vm-1");
    thing("state-disks", "disk-1");
    thing("registries", "registry-1");
    const calls = [];
    const lines = [];
    const record =
      (name) =>
      async (operation, ...rest) =>
        calls.push([name, operation.owner.urn, ...rest]);
    await remove(
      owned(state, mine),
      {
        hypervisor: () => ({ deleteVirtualMachine: record("vm"), deleteStateDisk: record("disk") }),
        registries: { deleteRegistry: record("registry") },
      },
      (line) => lines.push(line),
    );
    expect(calls).toEqual([
      ["vm", "urn:vm-1", "vm-1", true],
      ["disk", "urn:disk-1", "disk-1"],
      ["registry", "urn:registry-1", "registry-1"],
    ]);
    expect(lines).toHaveLength(3);
  });
});
