import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { claimImage } from "./host-images/store.js";
import { ownedThings, removeThings } from "./reap.js";
import type { Backends, Operation, Owner } from "../backends/index.js";
import { MarkerStore } from "../system/marker.js";

const mine = { backend: "file:///home/backend", project: "palisade", stack: "local" };
let state: string;
beforeEach(async () => {
  state = await mkdtemp(join(tmpdir(), "palisade-reap-"));
});
afterEach(() => rm(state, { recursive: true }));

const ownerOf = (name: string, changes: Partial<Owner> = {}): Owner => ({ ...mine, urn: `urn:${name}`, ...changes });

const kinds = [
  ["virtual-machines", "vm"],
  ["state-disks", "disk"],
  ["patches", "patch"],
  ["registries", "registry"],
] as const;

/** Marks a thing of each kind as an owner's. */
async function markAll(name: string, changes: Partial<Owner> = {}): Promise<Record<string, string>> {
  const ids: Record<string, string> = {};
  for (const [folder, prefix] of [...kinds].reverse()) {
    const store = new MarkerStore<object, object>(join(state, folder), prefix);
    ids[prefix] = (await store.adoptOrCreate(ownerOf(`${prefix}-${name}`, changes), {}, {})).id;
  }
  return ids;
}

const owned = async (whose: Parameters<typeof ownedThings>[1] = mine) =>
  (await ownedThings(state, whose)).map(({ id }) => id);

const digest = `sha256:${"1".repeat(64)}`;

describe("ownedThings", () => {
  it("finds nothing where there is nothing", async () => {
    expect(await ownedThings(join(state, "no"), mine)).toEqual([]);
  });

  it.each([
    ["backend", "file:///other"],
    ["project", "other"],
    ["stack", "other"],
  ])("finds nothing of another %s", async (key, value) => {
    const ids = await markAll("mine");
    await markAll("other", { [key]: value });
    await claimImage(state, digest, ownerOf("other", { [key]: value }));
    expect(await owned()).toEqual([ids["vm"], ids["disk"], ids["patch"], ids["registry"]]);
  });

  it("finds what belongs to any stack of a backend when only the backend is given", async () => {
    const ids = [await markAll("a", { stack: "a" }), await markAll("b", { project: "b" })];
    await markAll("c", { backend: "file:///other" });
    const found = await owned({ backend: mine.backend });
    expect(found.sort()).toEqual(ids.flatMap((each) => Object.values(each)).sort());
  });

  it("skips folders without a marker, and files", async () => {
    await mkdir(join(state, "registries/.locks"), { recursive: true });
    await mkdir(join(state, "registries/registry-0123456789ab"));
    await writeFile(join(state, "registries/file"), "");
    await writeFile(join(state, "registries/registry-0123456789ac"), "");
    expect(await owned()).toEqual([]);
  });

  it("lists machines before their disks and images", async () => {
    await claimImage(state, digest, ownerOf("image"));
    const ids = await markAll("mine");
    expect(await owned()).toEqual([ids["vm"], ids["disk"], ids["patch"], ids["registry"], digest]);
  });
});

describe("removeThings", () => {
  it("asks the backend of each kind, as the owner, with force for machines", async () => {
    const ids = await markAll("mine");
    await claimImage(state, digest, ownerOf("image"));
    const calls: unknown[][] = [];
    const lines: string[] = [];
    const record =
      (name: string) =>
      async ({ owner, log }: Operation, ...rest: unknown[]) => {
        log("info", `${name} is removed`);
        calls.push([name, owner.urn, ...rest]);
      };
    const backends = {
      hypervisor: () => ({ deleteVirtualMachine: record("vm"), deleteStateDisk: record("disk") }),
      patcher: { endPatch: record("patch") },
      registries: { deleteRegistry: record("registry") },
      hostImages: { release: record("image") },
    } as unknown as Backends;
    await removeThings(await ownedThings(state, mine), backends, (line) => lines.push(line));
    expect(calls).toEqual([
      ["vm", "urn:vm-mine", ids["vm"], true],
      ["disk", "urn:disk-mine", ids["disk"]],
      ["patch", "urn:patch-mine", ids["patch"]],
      ["registry", "urn:registry-mine", ids["registry"]],
      ["image", "urn:image", digest],
    ]);
    expect(lines).toHaveLength(10);
    expect(lines[0]).toBe(`removing the virtual machine ${ids["vm"]}, which an interrupted run left (urn:vm-mine)`);
    expect(lines[1]).toBe("vm is removed");
  });
});
