/** The contract of RegistryService. */
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { RegistryObserved, RegistryService } from "../../../provider/backends/index.js";
import { operation, type MakeSubject, type Subject } from "./subject.js";

export function registryContract(implementation: string, make: MakeSubject): void {
  describe(`registry: ${implementation}`, () => {
    let subject: Subject;
    let dispose: () => Promise<void>;
    let registries: RegistryService;
    let registry: RegistryObserved;

    beforeAll(async () => {
      ({ subject, dispose } = await make());
      registries = subject.backends.registries;
    });
    afterAll(async () => dispose?.());

    it("is made once per owner, also after calls that were cancelled half-way", async () => {
      for (const checkpoint of ["marker-written", "registry-started"]) {
        await expect(registries.createRegistry(operation("registry", checkpoint), { port: 0 })).rejects.toThrow();
      }
      registry = await registries.createRegistry(operation("registry"), { port: 0 });
      expect(registry.powerState).toBe("running");
      expect(registry.password.length).toBeGreaterThanOrEqual(16);
      expect(await registries.createRegistry(operation("registry"), { port: 0 })).toEqual(registry);
      expect(await registries.readRegistry(registry.id)).toEqual(registry);
      expect(await registries.findRegistry(registry.server)).toEqual(registry);
      expect(await registries.findRegistry("registry.example:5000")).toBeUndefined();
    });

    it("is seen stopped, and started again as it was", async () => {
      await subject.crashRegistry(registry.id);
      expect(await registries.readRegistry(registry.id)).toEqual({ ...registry, powerState: "stopped" });
      expect(await registries.updateRegistry(operation("registry"), registry.id, { port: 0 })).toEqual(registry);
    });

    it("is deleted, twice without harm", async () => {
      for (let time = 0; time < 2; time++) {
        await registries.deleteRegistry(operation("registry"), registry.id);
        expect(await registries.readRegistry(registry.id)).toBeUndefined();
      }
    });
  });
}
