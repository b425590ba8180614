/** This machine's patcher under the contract of a patch: the fake one is in test/layers/contract. */
import { patchContract } from "../contract/image-services.js";
import { PatchBench } from "./bench.js";

patchContract("this machine's", async () => {
  const bench = await PatchBench.start();
  const original = await bench.outdatedImage("contract");
  const [nginx] = await bench.newest(["nginx"]);
  const database = await bench.databaseOf("contract", [
    { package: "nginx", id: "CVE-2026-00001", fixedVersion: nginx! },
  ]);
  return { patcher: bench.patcher, spec: bench.spec("contract", original, { database }), dispose: () => bench.stop() };
});
