/** A patch that is killed in the middle of each of its steps, one after the other, and then comes to its end. */
import { spawn } from "node:child_process";
import { mkdir, readdir } from "node:fs/promises";
import path from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import type { PatchObserved } from "../../../provider/backends/index.js";
import { idFor, MarkerStore } from "../../../provider/system/marker.js";
import { isAlive } from "../../../shared/process-identity.js";
import { testOwner } from "../../../provider/system/testing.js";
import { attestationTag } from "../../../provider/local/sealing/cosign.js";
import { PatchBench } from "./bench.js";
import type { Request } from "./interrupted-patch.js";
import { packageRoot } from "../../../shared/directories.js";

/** In the order in which a patch reaches them; `patching: ` is Copa at work in BuildKit. */
const steps = ["marker-written", "registry-started", "image-scanned", "patching: ", "image-patched", "image-pushed"];

const program = path.join(packageRoot(), "dist/test/layers/patch/interrupted-patch.js");

let bench: PatchBench;
let temporary: string;

beforeAll(async () => {
  bench = await PatchBench.start();
  temporary = path.join(bench.folder, "tmp");
  await mkdir(temporary);
}, 600_000);
afterAll(() => bench.stop());

interface Outcome {
  signal: NodeJS.Signals | null;
  stderr: string;
  observed: PatchObserved | undefined;
}

function patch(request: Request): Promise<Outcome> {
  return new Promise((resolve, reject) => {
    const child = spawn(process.execPath, [program, JSON.stringify(request)], {
      env: { ...process.env, TMPDIR: temporary },
      stdio: ["ignore", "pipe", "pipe"],
    });
    const text = { stdout: "", stderr: "" };
    for (const name of ["stdout", "stderr"] as const) {
      child[name].setEncoding("utf8").on("data", (chunk: string) => (text[name] += chunk));
    }
    child.once("error", reject);
    // What it has left running may hold its pipes.
    child.once("exit", (_code, signal) =>
      setTimeout(() => {
        const observed = text.stdout === "" ? undefined : (JSON.parse(text.stdout) as PatchObserved);
        resolve({ signal, stderr: text.stderr, observed });
      }, 100),
    );
  });
}

/** What can be found of a patch in the image's repository; manifests that only their digest finds are nothing. */
async function published(repository: string, digest: string): Promise<string[]> {
  const found: string[] = [];
  for (const tag of ["patched", attestationTag(digest)]) if (await bench.tag(repository, tag)) found.push(tag);
  return found;
}

it("leaves nothing half published, and the next run removes its remains and has the same result as without it", async () => {
  const original = await bench.outdatedImage("killed");
  const [nginx] = await bench.newest(["nginx"]);
  const advisories = [{ package: "nginx", id: "CVE-2026-00001", fixedVersion: nginx! }];
  const database = await bench.databaseOf("small", advisories);
  const spec = bench.spec("killed", original, { database });
  const markers = new MarkerStore<unknown, { workspace: string }>(path.join(bench.state, "patches"), "patch");
  const id = idFor("patch", testOwner("interrupted"));
  const left = new Map<string, Awaited<ReturnType<typeof markers.existing>>>();
  for (const stopAt of steps) {
    const { signal, stderr } = await patch({ stateDirectory: bench.state, spec, stopAt });
    expect(signal, `${stopAt}: ${stderr}`).toBe("SIGKILL");
    expect(await published("killed", original), stopAt).toEqual([]);
    left.set(stopAt, await markers.existing(id));
    // Of all the runs before, there is what the last one left, at most.
    expect((await readdir(temporary)).length, stopAt).toBeLessThanOrEqual(1);
  }
  // Control: there was something to clear away.
  const busy = left.get("patching: ")!;
  expect(busy.processes.map(({ name }) => name)).toEqual(["buildkitd"]);
  expect(await readdir(temporary)).toHaveLength(1);

  const { observed, stderr } = await patch({ stateDirectory: bench.state, spec });
  // Both packages of the source.
  expect(observed, stderr).toMatchObject({ fixableBefore: 2, fixableAfter: 0 });
  expect(await bench.tag("killed", "patched")).toBe(observed!.digest);
  expect(await published("killed", observed!.digest)).toEqual(["patched", attestationTag(observed!.digest)]);
  const [before, after] = [await bench.image("killed", original), await bench.image("killed", observed!.digest)];
  expect(after.manifest.layers.slice(0, -1)).toEqual(before.manifest.layers);
  expect(after.configuration.config).toEqual(before.configuration.config);

  for (const [step, { processes }] of left) {
    for (const process of processes) expect(await isAlive(process), `${process.name} of ${step}`).toBe(false);
  }
  expect(await readdir(temporary)).toEqual([]);
  expect(await markers.read(id)).toBeUndefined();
  const registries = (await readdir(path.join(bench.state, "registries"))).filter((name) => /^registry-/.test(name));
  expect(registries, "only that of the test").toHaveLength(1);
});
