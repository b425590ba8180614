/**
 * On real QEMU, TPM, registry and agent.
 */
import { execFile } from "node:child_process";
import { mkdtemp, readFile, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { promisify } from "node:util";
import { createLocalBackends } from "../../../provider/local/index.js";
import { processOf } from "../../../provider/system/marker.js";
import { terminate, waitForExit, type NamedProcess } from "../../../provider/system/process.js";
import { cacheDirectory, testKeys } from "../../support/hosts/environment.js";
import { hypervisorContract } from "./hypervisor.js";
import { registryContract } from "./registry.js";
import { operation, type MakeSubject, type Subject } from "./subject.js";

async function processIn(folder: string, name: string): Promise<NamedProcess | undefined> {
  const marker = JSON.parse(await readFile(path.join(folder, "marker.json"), "utf8")) as {
    processes: NamedProcess[];
  };
  return processOf(marker, name);
}

const make =
  (withImage: boolean): MakeSubject =>
  async () => {
    const root = await mkdtemp(path.join(tmpdir(), "palisade-contract-"));
    const stateDirectory = path.join(root, "state");
    const backends = createLocalBackends({ stateDirectory, cacheDirectory: cacheDirectory() });
    const keys = withImage ? await testKeys() : "";
    const image = withImage
      ? await backends.hostImages.build(operation("image"), { mode: "enforce", keysDirectory: keys })
      : undefined;
    const pair = (name: string) => ({
      certificateFile: path.join(keys, "hosts", `${name}.crt`),
      keyFile: path.join(keys, "hosts", `${name}.key`),
    });
    const end = async (folder: string, name: string) => {
      const identity = await processIn(folder, name).catch(() => undefined);
      if (identity) process.kill(identity.pid, "SIGKILL");
      await waitForExit(identity, 10_000);
    };
    const folderOf = (machineId: string) => path.join(stateDirectory, "virtual-machines", machineId);
    const subject: Subject = {
      backends,
      imageDigest: image?.digest ?? "",
      certificateAuthority: pair("ca"),
      clientIdentity: pair("client"),
      crash: (id) => end(folderOf(id), "qemu"),
      silence: async (id) => {
        // A stopped QEMU neither forwards connections nor answers its monitor.
        const { pid } = (await processIn(folderOf(id), "qemu"))!;
        process.kill(pid, "SIGSTOP");
        return async () => void process.kill(pid, "SIGCONT");
      },
      crashRegistry: (id) => end(path.join(stateDirectory, "registries", id), "docker-registry"),
    };
    return {
      subject,
      async dispose() {
        // What a failed test left running.
        for (const kind of ["virtual-machines", "registries"]) {
          const { stdout } = await promisify(execFile)("find", [
            path.join(stateDirectory, kind),
            ...["-name", "marker.json"],
          ]).catch(() => ({ stdout: "" }));
          for (const file of stdout.split("\n").filter(Boolean)) {
            const { processes } = JSON.parse(await readFile(file, "utf8")) as { processes: NamedProcess[] };
            for (const identity of processes) await terminate(identity, 1000);
          }
        }
        await rm(root, { recursive: true, force: true });
      },
    };
  };

hypervisorContract("QEMU", make(true));
registryContract("docker-registry", make(false));
