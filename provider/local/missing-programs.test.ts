/** What a machine without a program says: before anything is made, by name, with what to do. */
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it, vi } from "vitest";
import type { DebianImageSpec, HostImageBuildSpec, VirtualMachineSpec } from "../backends/index.js";
import { createLocalBackends } from "./index.js";
import { testOperation, withFolder } from "../system/testing.js";
import { buildDatabase } from "./patching/database-builder.js";
import { sealTools } from "./sealing/tools.js";

// As on a machine that has none of them: PATH alone hides nothing, as Debian's own folders are always searched.
vi.mock("../system/programs.js", async (importOriginal) => {
  const original = await importOriginal<typeof import("../system/programs.js")>();
  const nowhere: typeof original.requirePrograms = (what, names) => original.requirePrograms(what, names, "/nowhere");
  return { ...original, requirePrograms: nowhere };
});
// No tool of this machine is the pinned one.
vi.mock("../system/command.js", async (importOriginal) => ({
  ...(await importOriginal<object>()),
  run: () => Promise.reject(new Error("nothing may run")),
}));

const machine: VirtualMachineSpec = {
  imageDigest: `sha256:${"0".repeat(64)}`,
  stateDiskId: "disk-000000000000",
  cpus: 1,
  memoryMiB: 1024,
  publishedPorts: [],
  certificateAuthority: { certificateFile: "/c", keyFile: "/k" },
  clientIdentity: { certificateFile: "/c", keyFile: "/k" },
  acceleration: "tcg",
  powerState: "running",
};
const image = {
  registry: { server: "r.example" },
  repository: "web",
  suite: "trixie",
  packages: ["nginx"],
  files: {},
  environment: {},
  entrypoint: [],
  command: [],
} as unknown as DebianImageSpec;

type Backends = ReturnType<typeof createLocalBackends>;

describe("a machine that lacks a program", () => {
  it.each<[string, string, (backends: Backends, cache: string) => Promise<unknown>]>([
    [
      "a state disk",
      "qemu-img",
      ({ hypervisor }) => hypervisor("local").createStateDisk(testOperation("missing"), { sizeGiB: 1 }),
    ],
    [
      "a virtual machine",
      "qemu-system-x86_64, swtpm",
      ({ hypervisor }) => hypervisor("local").createVirtualMachine(testOperation("missing"), machine),
    ],
    [
      "a registry",
      "docker-registry",
      ({ registries }) => registries.createRegistry(testOperation("missing"), { port: 0 }),
    ],
    [
      "an image of Debian packages",
      "mmdebstrap",
      ({ images }) => images.buildDebianImage(testOperation("missing"), image),
    ],
    [
      "a host image",
      "mmdebstrap, openssl",
      ({ hostImages }) => {
        // What it is made of is not built for this test.
        vi.spyOn(hostImages, "inputsHash").mockResolvedValue("0");
        return hostImages.build(testOperation("missing"), { keysDirectory: "/nowhere" } as HostImageBuildSpec);
      },
    ],
    ["sealing", "mmdebstrap", (_backends, cache) => sealTools(cache)],
    [
      "a vulnerability database",
      "apt-get, dpkg-deb, vulndb",
      (_backends, cache) =>
        buildDatabase({ suite: "trixie", packages: ["nginx"] }, join(cache, "db"), cache, () => undefined),
    ],
  ])("is told what %s needs, and nothing is made", async (what, programs, create) => {
    await withFolder(async (folder) => {
      const [stateDirectory, cacheDirectory] = [join(folder, "state"), join(folder, "cache")];
      const backends = createLocalBackends({ stateDirectory, cacheDirectory });
      const failure = await create(backends, cacheDirectory).catch((error: Error) => error);
      expect((failure as Error).message).toContain(`${what} needs ${programs}`);
      expect((failure as Error).message).toMatch(/which this machine lacks: sudo apt-get install .*Nothing was made$/);
      expect(await readdir(folder)).toEqual([]);
    });
  });
});
