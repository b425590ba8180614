/** Rows C1 to C8 and X5: what runs in containers. The attacker is root on the host, or in a container. */
import { generateKeyPairSync, randomBytes } from "node:crypto";
import { readFileSync } from "node:fs";
import path from "node:path";
import { create } from "@bufbuild/protobuf";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import type { SealObserved } from "../../../provider/backends/index.js";
import { ImagePolicySchema } from "../../../hosts/api/gen/palisade/agent/v1/images_pb.js";
import { eventually } from "../../support/hosts/environment.js";
import type { Probe } from "../../support/hosts/probe.js";
import { unenforced } from "./execution.js";
import { prove } from "../../support/acceptance/prove.js";
import { report } from "../../support/acceptance/report.js";
import { Groups, Images, type AttackedHost } from "./hosts.js";

const store = "/var/lib/palisade/layers";
const hexOf = (digest: string) => digest.replace("sha256:", "");
const blob = (rootHash: string) => `${store}/blobs/${rootHash}.erofs`;
const signature = (rootHash: string) => `${store}/blobs/${rootHash}.p7s`;
const sealFile = (digest: string) => `${store}/seals/${hexOf(digest)}.json`;

/** A file system that is mounted, with the verity device it comes from. */
interface LowerLayer {
  device: string;
  name: string;
  table: string;
}

/** The lower layers of each container's root file system that is mounted, by container id. */
export async function lowerLayers(probe: Probe): Promise<Map<string, LowerLayer[]>> {
  const mounts = (await probe.read("/proc/1/mountinfo")).split("\n").filter(Boolean);
  const parsed = mounts.map((line) => {
    const [before, after] = line.split(" - ");
    const [kind, source, options] = after!.split(" ");
    return { place: before!.split(" ")[4]!, kind: kind!, source: source!, options: options! };
  });
  const tables = new Map(
    (await probe.output("/usr/sbin/dmsetup", "table")).split("\n").map((line) => line.split(": ") as [string, string]),
  );
  const layers = new Map<string, LowerLayer[]>();
  for (const { place, options } of parsed.filter(({ kind }) => kind === "overlay")) {
    const id = /\/([0-9a-z-]+)\/rootfs$/.exec(place)?.[1];
    const lower = /lowerdir\+?=([^,]+)/.exec(options)?.[1]?.split(":") ?? [];
    if (id === undefined) continue;
    layers.set(
      id,
      await Promise.all(
        lower.map(async (folder) => {
          const device = parsed.find((mount) => mount.place === folder)?.source ?? "none";
          const name = device.startsWith("/dev/dm-")
            ? (await probe.read(`/sys/block/${path.basename(device)}/dm/name`)).trim()
            : "none";
          return { device, name, table: tables.get(name) ?? "none" };
        }),
      ),
    );
  }
  return layers;
}

const isSigned = ({ name, table }: LowerLayer) =>
  name.startsWith("palisade-layer-") && / verity /.test(table) && /root_hash_sig_key_desc/.test(table);

export function containerAttacks(enforce: AttackedHost, isolated: AttackedHost): void {
  describe("containers", () => {
    let images: Images;
    let groups: Groups;
    let one: SealObserved;
    let two: SealObserved;
    const data = randomBytes(256 << 10);

    beforeAll(async () => {
      images = new Images(enforce.environment);
      groups = new Groups(enforce.environment, images);
      const base = { "/probe": images.probe };
      one = await images.sealed("attack/one", [base, { "/data": data }]);
      two = await images.sealed("attack/two", [base, { "/data": randomBytes(64 << 10) }]);
      // Both stay declared, as an image that no group names is removed from the store.
      for (const [name, image] of [
        ["one", one],
        ["two", two],
      ] as const) {
        await groups.declare(name, image.reference, ["/probe", "do", "sleep", "0"]);
        const { exitCode, events } = await groups.outcome(name);
        expect(exitCode, events).toBe(0);
      }
    });
    afterAll(async () => {
      for (const name of ["one", "two"]) await groups?.remove(name);
    });

    /** Runs an image past the agent, as root with containerd's client: `done`, or what containerd said. */
    let runs = 0;
    async function runPastAgent(image: SealObserved, ...attack: string[]): Promise<string> {
      const { exitCode, stdout, stderr } = await enforce
        .probe()
        .run(
          ...["/usr/bin/ctr", "--namespace", "k8s.io", "run", "--rm", "--snapshotter", "sealed"],
          ...["--runc-binary", "/usr/bin/crun", image.reference, `past-agent-${++runs}`],
          ...["/probe", "do", ...(attack.length ? attack : ["sleep", "0"])],
        );
      return exitCode === 0 ? "done" : (stdout + stderr).trim();
    }

    /** Changes a file of the store, runs the image, puts the file back and runs it again. */
    async function tampered(file: string, image: SealObserved, tamper: () => Promise<string>) {
      const probe = enforce.probe();
      // The file itself is put aside and a copy tampered with: what is put back has its owner and links as before.
      expect(await probe.attack("rename", file, `${file}.kept`), file).toBe("done");
      expect(await probe.attack("copy", `${file}.kept`, file)).toBe("done");
      try {
        expect(await tamper()).toBe("done");
        // A device that was opened before stays open for a while, and right.
        const device = `palisade-layer-${path.basename(file).replace(/[.].*/, "")}`;
        await eventually(`${device} is closed`, 60, async () =>
          (await probe.output("/usr/sbin/dmsetup", "ls")).includes(device) ? undefined : true,
        );
        await probe.write("/proc/sys/vm/drop_caches", "3");
        return await runPastAgent(image);
      } finally {
        expect(await probe.attack("rename", `${file}.kept`, file)).toBe("done");
        await probe.write("/proc/sys/vm/drop_caches", "3");
      }
    }

    it("C1, C8: every layer of every container, the pause container's too, is on a device with a checked signature", async () => {
      const started = Date.now();
      const probe = enforce.probe();
      const layers = await lowerLayers(probe);
      const web = await enforce.environment.agent((client) => client.getGroup("web"));
      const [container] = web!.status!.containers;
      const own = layers.get(container!.containerId) ?? [];
      const sandboxes = (await probe.output("/usr/bin/ctr", "-n", "k8s.io", "containers", "ls"))
        .split("\n")
        .filter((line) => line.includes("palisade.internal/pause"))
        .map((line) => line.split(/\s+/)[0]!);
      const all = [...layers.values()].flat();
      // A device of the right name that carries no signature, read in the same way.
      const unsigned = `palisade-layer-${"0".repeat(64)}`;
      await probe.output("/usr/sbin/dmsetup", "create", unsigned, "--noudevsync", "--table", "0 8 error");
      const table = (await probe.output("/usr/sbin/dmsetup", "table", unsigned)).trim();
      await probe.output("/usr/sbin/dmsetup", "remove", "--noudevsync", unsigned);
      const controlPasses = isSigned({ device: "", name: unsigned, table });
      prove(
        {
          id: "C1",
          observed: `${own.length} layers of nginx, all ${all.length} of ${layers.size} containers on signed verity devices: ${all.every(isSigned)}`,
          control: `a device of the host without a signature, "${table}", is taken for signed: ${controlPasses}`,
          evidence: own.map(({ table }) => table).join("\n"),
        },
        started,
        own.length >= 2 &&
          all.every(isSigned) &&
          !controlPasses &&
          own.map(({ name }) => name).every((name) => container!.sealed.some((hash) => name.endsWith(hash))),
      );
      const pause = sandboxes.map((id) => layers.get(id)).filter((found) => found !== undefined);
      prove(
        {
          id: "C8",
          observed: `${pause.length} pause containers, each on ${pause.map((found) => found.length).join(", ")} signed layers`,
          control: `a device of the host without a signature is taken for signed: ${controlPasses}`,
          evidence: pause[0]?.[0]?.table ?? "none",
        },
        started,
        pause.length > 0 &&
          pause.length === sandboxes.length &&
          !controlPasses &&
          pause.every((found) => found.length > 0 && found.every(isSigned)),
      );
    });

    it("C2: an unsealed image is refused, and says why", async () => {
      const started = Date.now();
      const digest = await images.push("attack/unsealed", [{ "/probe": images.probe, "/unsealed": Buffer.from("1") }]);
      const reference = await images.reference("attack/unsealed", digest);
      const before = await groups.run("unsealed", reference, ["/probe", "do", "sleep", "0"]);
      // Past the agent: containerd is asked for it directly, and has no layer of it.
      const past = await runPastAgent({ ...one, digest, reference });
      const runsOther = await runPastAgent(one);
      await images.seal("attack/unsealed", digest);
      const after = await groups.run("unsealed", reference, ["/probe", "do", "sleep", "0"]);
      prove(
        {
          id: "C2",
          observed: `started: ${before.exitCode !== undefined}; past the agent: ${short(past)}`,
          control: `the same image, sealed: exit code ${after.exitCode}; another one past the agent: ${runsOther}`,
          evidence: before.events,
        },
        started,
        before.exitCode === undefined &&
          /ImageRefused.*(seal|sealed)/.test(before.events) &&
          past !== "done" &&
          after.exitCode === 0 &&
          runsOther === "done",
      );
    });

    it("C3: a byte flipped in a blob in use fails that read only, and the group's events say so", async () => {
      const started = Date.now();
      const probe = enforce.probe();
      await groups.declare("flipped", one.reference, ["/probe", "do", "sleep", "3600"], { restart: true });
      const { containerId, rootHash } = await eventually("the container runs", 60, async () => {
        const [container] = (await groups.get("flipped")).status!.containers;
        const { containerId, sealed } = container!;
        return containerId === "" ? undefined : { containerId, rootHash: sealed[1]! };
      });
      const inside = async (offset: number) => {
        await probe.write("/proc/sys/vm/drop_caches", "3");
        const { stdout, stderr } = await probe.run(
          ...["/usr/bin/ctr", "-n", "k8s.io", "tasks", "exec", "--exec-id", `read-${++runs}`, containerId],
          ...["/probe", "do", "read-byte", "/data", String(offset)],
        );
        return (stdout + stderr).trim();
      };
      const file = blob(rootHash);
      const at = Number(
        (await probe.attack("find", file, data.subarray(128 << 10, (128 << 10) + 32).toString("hex"))).split("\n")[0],
      );
      const before = await inside(128 << 10);
      expect(await probe.attack("flip", file, at)).toBe("done");
      try {
        const flipped = await inside(128 << 10);
        const elsewhere = await inside(16);
        const others = await eventually("the other group serves", 30, async () => {
          const response = await fetch(String((await enforce.environment.outputs())["url"]));
          return response.ok ? response.status : undefined;
        });
        const events = await eventually("the event LayerCorrupted", 60, async () => {
          const group = await groups.get("flipped");
          const found = group.status!.events.filter(({ reason }) => reason === "LayerCorrupted");
          return found.length ? found.map(({ reason, message }) => `${reason}: ${message}`).join("\n") : undefined;
        });
        prove(
          {
            id: "C3",
            observed: `read of the flipped block: ${flipped}; of another block: ${elsewhere}; another group: HTTP ${others}`,
            control: `the same read before: ${before}`,
            evidence: events,
          },
          started,
          before === "done" && flipped === "EIO" && elsewhere === "done" && events.includes(rootHash),
        );
      } finally {
        await probe.attack("flip", file, at);
        await groups.remove("flipped");
      }
    });

    it("C4: signed layers of another image do not stand in for the declared ones", async () => {
      const started = Date.now();
      const probe = enforce.probe();
      const [, mine] = one.rootHashes;
      const [, other] = two.rootHashes;
      const swapped = await tampered(blob(mine!), one, () => probe.attack("copy", blob(other!), blob(mine!)));
      const sealed = await tampered(sealFile(one.digest), one, () =>
        probe.attack("copy", sealFile(two.digest), sealFile(one.digest)),
      );
      const both = await tampered(signature(mine!), one, () =>
        probe.attack("copy", signature(other!), signature(mine!)),
      );
      const control = await runPastAgent(one);
      prove(
        {
          id: "C4",
          observed: `blob of another layer: ${short(swapped)}; seal of another image: ${short(sealed)}; signature of another layer: ${short(both)}`,
          control: `all put back: ${control}`,
          evidence: [swapped, sealed, both].join("\n"),
        },
        started,
        [swapped, sealed, both].every((refusal) => refusal !== "done") &&
          /refused to mount/.test(sealed) &&
          /kernel refused the signature/.test(both) &&
          control === "done",
      );
    });

    it("C5: a layer whose signature, tree or seal is missing is refused", async () => {
      const started = Date.now();
      const probe = enforce.probe();
      const [, rootHash] = one.rootHashes;
      const refusals: string[] = [];
      for (const file of [signature(rootHash!), blob(rootHash!), sealFile(one.digest)]) {
        const refusal = await tampered(file, one, () => probe.attack("remove", file));
        refusals.push(`${path.basename(file).replace(/^[0-9a-f]{64}/, "…")}: ${refusal}`);
      }
      const control = await runPastAgent(one);
      prove(
        {
          id: "C5",
          observed: refusals.map(short).join("; "),
          control: `all put back: ${control}`,
          evidence: refusals.join("\n"),
        },
        started,
        refusals.every((refusal) => !refusal.endsWith(": done")) && control === "done",
      );
    });

    it("C6: what a container writes is data: an ELF in its writable layer or in shared memory does not run", async () => {
      const started = Date.now();
      const places = ["/tmp/x", "/dev/shm/x"];
      const isolatedImages = new Images(isolated.environment);
      const there = await isolatedImages.sealed("attack/one", [{ "/probe": images.probe }]);
      const attempts: { place: string; full: string; control: string }[] = [];
      const onIsolated = new Groups(isolated.environment, isolatedImages);
      await enforce.probe().denials("");
      for (const place of places) {
        const command = ["/probe", "do", "copy", "/probe", place, "then", "run", place, "do", "sleep", "0"];
        const full = await groups.run("writes", one.reference, command);
        const control = await unenforced(isolated.probe(), () => onIsolated.run("writes", there.reference, command));
        expect(full.exitCode, full.events).toBeDefined();
        expect(control.exitCode, control.events).toBeDefined();
        attempts.push({ place, full: words(full.output), control: words(control.output) });
      }
      const records = await enforce.probe().denials("");
      prove(
        {
          id: "C6",
          observed: attempts.map(({ place, full }) => `${place}: ${full}`).join("; "),
          control: `policy not enforced: ${attempts.map(({ place, control }) => `${place}: ${control}`).join("; ")}`,
          evidence: records.join("\n"),
        },
        started,
        attempts.every(({ full }) => full === "done EACCES") &&
          // Shared memory is mounted noexec in containers, whatever the policy says.
          attempts[0]!.control === "done done" &&
          records.some((record) => record.includes("/tmp/x")),
      );
    });

    it("C7: a layer that another key signed is refused by the kernel", async () => {
      const started = Date.now();
      const foreign = path.join(enforce.environment.root, "foreign-keys");
      await enforce.environment.run("bin/palisade", ["keys", "init", "--directory", foreign]);
      const layers = [{ "/probe": images.probe, "/foreign": Buffer.from("1") }];
      const digest = await images.push("attack/foreign", layers);
      await images.seal("attack/foreign", digest, foreign);
      const reference = await images.reference("attack/foreign", digest);
      const by = await groups.run("foreign", reference, ["/probe", "do", "sleep", "0"]);
      const ours = await images.sealed("attack/ours", [{ ...layers[0]!, "/ours": Buffer.from("1") }]);
      const control = await groups.run("ours", ours.reference, ["/probe", "do", "sleep", "0"]);
      prove(
        {
          id: "C7",
          observed: `started: ${by.exitCode !== undefined}`,
          control: `a layer of the same content signed by our key: exit code ${control.exitCode}`,
          evidence: by.events,
        },
        started,
        by.exitCode === undefined && /kernel refused the signature/.test(by.events) && control.exitCode === 0,
      );
    });

    it("labels what a container writes with its own categories, and what it reads with none", async () => {
      const probe = enforce.probe();
      const mounts = (await probe.read("/proc/1/mountinfo")).split("\n");
      const overlays = mounts.filter((line) => line.includes(" - overlay ") && line.includes("/rootfs "));
      const lower = mounts.filter((line) => line.includes(" - erofs /dev/dm-") && line.includes("/run/containerd/"));
      expect(overlays.length).toBeGreaterThan(1);
      for (const line of overlays) expect(line).toMatch(/context="?system_u:object_r:container_file_t:s0:c\d+,c\d+/);
      for (const line of lower) expect(line).toMatch(/context="?system_u:object_r:container_ro_file_t:s0"?[,\s]/);
    });

    it("works with user namespaces: layers are mapped, not copied", async () => {
      const { exitCode, stdout, stderr } = await enforce
        .probe()
        .run(
          ...["/usr/bin/ctr", "--namespace", "k8s.io", "run", "--rm", "--snapshotter", "sealed"],
          ...["--runc-binary", "/usr/bin/crun", "--uidmap", "0:200000:65536", "--gidmap", "0:200000:65536"],
          ...["--remap-labels", one.reference, "mapped", "/probe", "do"],
          ...[
            "copy",
            "/data",
            "/tmp/x",
            "then",
            "write",
            "/proc/self/oom_score_adj",
            Buffer.from("500").toString("hex"),
          ],
        );
      expect(exitCode, stdout + stderr).toBe(0);
      expect(words(stdout)).toBe("done done");
    });

    it("PT11: takes images from the repositories of a policy only, signed by its key", async () => {
      const started = Date.now();
      const signer = path.join(enforce.environment.home, "keys/images/signer.pub");
      const keys = [readFileSync(signer, "utf8")];
      const repository = one.reference.split("@")[0]!;
      const others = [
        generateKeyPairSync("ec", { namedCurve: "P-256" }).publicKey.export({ type: "spki", format: "pem" }) as string,
      ];
      const declare = (policy: { repositories: string[]; keys: string[] }) =>
        enforce.environment.agent((client) =>
          client.applyImagePolicy(create(ImagePolicySchema, { name: "attack", ...policy })),
        );
      const starts = async (image: SealObserved) => {
        const { exitCode, events } = await groups.run("policy", image.reference, ["/probe", "do", "sleep", "0"]);
        return exitCode === 0 ? "runs" : events;
      };
      try {
        await declare({ repositories: [repository], keys });
        expect(await starts(one)).toBe("runs");
        expect(await starts(two)).toMatch(/ImageRefused.*ImageNotAllowed/);
        await declare({ repositories: [repository], keys: others });
        const refused = await starts(one);
        report({
          table: "patch",
          id: "PT11",
          observed: `signed by a key that the policy does not name: ${short(refused)}`,
          control: "the same image, while the policy names its key: runs",
          evidence: refused,
          pass: /ImageRefused.*SignatureByUnknownKey/.test(refused),
          seconds: (Date.now() - started) / 1000,
          missing: "a signature that is missing or of another repository; the old group goes on serving",
        });
        expect(refused).toMatch(/ImageRefused.*SignatureByUnknownKey/);
      } finally {
        await enforce.environment.agent((client) => client.deleteImagePolicy("attack"));
      }
      expect(await starts(two)).toBe("runs");
    });

    it("X5: containerd refuses the uid of role groups what the agent does not ask for", async () => {
      const started = Date.now();
      const ask = (what: string, uid = "841") => enforce.probe().attack("as", uid, "containerd", what, one.reference);
      const refusals: [string, RegExp][] = [
        ["sandbox-privileged", /PermissionDenied.*privileged/],
        ["sandbox-network", /PermissionDenied.*network: NODE is refused/],
        ["sandbox-pid", /PermissionDenied.*pid: NODE is refused/],
        ["sandbox-ipc", /PermissionDenied.*ipc: NODE is refused/],
        ["container-privileged", /PermissionDenied.*privileged/],
        ["container-host-path", /PermissionDenied.*host_path/],
        ["container-device", /PermissionDenied.*devices/],
        ["container-capability", /PermissionDenied.*add_capabilities/],
        ["native", /Unimplemented/],
      ];
      const answers: string[] = [];
      for (const [what] of refusals) answers.push(await ask(what));
      const plain = [await ask("sandbox-plain"), await ask("container-plain")];
      const other = await ask("native", "842");
      prove(
        {
          id: "X5",
          observed: refusals.map(([what, expected], index) => `${what}: ${expected.test(answers[index]!)}`).join("; "),
          control: `what the agent asks for: ${plain.join(", ")}; another role does not connect: ${short(other)}`,
          evidence: answers.join("\n"),
        },
        started,
        refusals.every(([, expected], index) => expected.test(answers[index]!)) &&
          plain.every((answer) => answer === "done") &&
          /permission denied/.test(other),
      );
    });

    it("opens one device for a layer, however many containers use it, and closes it with the last", async () => {
      const probe = enforce.probe();
      const count = async () => {
        const listed = await probe.output("/usr/sbin/dmsetup", "ls");
        return one.rootHashes.map((hash) => listed.split("\n").filter((line) => line.includes(hash)).length);
      };
      const names = ["shared-1", "shared-2", "shared-3"];
      for (const name of names) await groups.declare(name, one.reference, ["/probe", "do", "sleep", "3600"]);
      for (const name of names) {
        await eventually(`${name} runs`, 120, async () => {
          const group = await groups.get(name);
          if (group.status!.containers[0]!.containerId !== "") return true;
          throw new Error(group.status!.events.map(({ reason, message }) => `${reason}: ${message}`).join("; "));
        });
      }
      expect(await count()).toEqual([1, 1]);
      for (const name of names) await groups.remove(name);
      // The containers of `one` and `two` have ended, but are there: their layers stay mounted.
      expect((await count()).every((number) => number <= 1)).toBe(true);
    });
  });
}

/** The last words of a refusal. */
const short = (refusal: string) =>
  refusal === "done" ? refusal : refusal.replace(/^.*: (?=[^:]+: [^:]+$)/s, "").slice(0, 160);

/** The probe's answers on one line. */
const words = (output: string) => output.trim().split(/\s+/).join(" ");
