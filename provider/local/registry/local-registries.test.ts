import { spawnSync } from "node:child_process";
import { readFile, readdir, stat } from "node:fs/promises";
import { join } from "node:path";
import { describe, expect, it } from "vitest";
import { terminate } from "../../system/process.js";
import { testOperation, withFolder } from "../../system/testing.js";
import { manifestDigest, ping } from "./client.js";
import { LocalRegistries } from "./local-registries.js";

// The contract itself is tested in test/layers/contract; here is what only the real registry has.
describe.runIf(spawnSync("docker-registry", ["--version"]).status === 0)("LocalRegistries", () => {
  it("demands the password and shows the CA's certificate; both stay over restarts", async () => {
    await withFolder(async (state) => {
      const registries = new LocalRegistries(state);
      const registry = await registries.createRegistry(testOperation("a"), { port: 0 });
      try {
        expect(await ping(registry)).toBe(true);
        expect(await ping({ ...registry, password: "wrong" })).toBe(false);
        await expect(ping({ ...registry, ca: undefined })).rejects.toThrow(/does not answer.*certificate/);
        expect(await manifestDigest(registry, "web/nginx", "latest")).toBeUndefined();
        await expect(manifestDigest({ ...registry, password: "wrong" }, "web/nginx", "latest")).rejects.toThrow(
          /refuses access to web\/nginx \(HTTP 401\)/,
        );

        const folder = join(state, "registries", registry.id);
        const marker = JSON.parse(await readFile(join(folder, "marker.json"), "utf8"));
        const [running] = marker.processes;
        for (const file of ["cmdline", "environ"]) {
          expect(await readFile(`/proc/${running.pid}/${file}`, "utf8")).not.toContain(registry.password);
        }
        for (const name of await readdir(folder)) {
          const { mode } = await stat(join(folder, name));
          expect(mode & 0o077, name).toBe(0);
        }
        await terminate(running);
        expect(await registries.updateRegistry(testOperation("a"), registry.id, { port: 0 })).toEqual(registry);
      } finally {
        await registries.deleteRegistry(testOperation("a"), registry.id);
      }
      expect(await readdir(join(state, "ports"))).toEqual([".lock"]);
    });
  });

  it("moves to another port when told so, and gives the old one up", async () => {
    await withFolder(async (state) => {
      const registries = new LocalRegistries(state);
      const first = await registries.createRegistry(testOperation("a"), { port: 0 });
      const second = await registries.createRegistry(testOperation("b"), { port: 0 });
      try {
        const taken = Number(second.server.split(":")[1]);
        await expect(registries.updateRegistry(testOperation("a"), first.id, { port: taken })).rejects.toThrow(
          new RegExp(`port ${taken}/TCP.*reserved by .*${second.id}`),
        );
        await registries.deleteRegistry(testOperation("b"), second.id);
        const moved = await registries.updateRegistry(testOperation("a"), first.id, { port: taken });
        expect(moved.server).toBe(`127.0.0.1:${taken}`);
        expect(await ping(moved)).toBe(true);
        expect((await readdir(join(state, "ports"))).filter((name) => name !== ".lock")).toEqual([`tcp-${taken}.json`]);
      } finally {
        await registries.deleteRegistry(testOperation("a"), first.id);
        await registries.deleteRegistry(testOperation("b"), second.id);
      }
    });
  });
});
