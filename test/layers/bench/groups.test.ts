/**
 * What sealing costs a host (`make bench-groups`), by ratio in one run on one host of mode audit, where the integrity
 * policy denies nothing: starting a container sealed beside unsealed, and memory and devices of a hundred groups that
 * share layers.
 */
import { mkdirSync, writeFileSync } from "node:fs";
import path from "node:path";
import { afterAll, beforeAll, expect, it } from "vitest";
import { lowerLayers } from "../attack/containers.js";
import { Groups, Images } from "../attack/hosts.js";
import { reportsFolder } from "../../support/acceptance/report.js";
import type { SealObserved } from "../../../provider/backends/index.js";
import { Environment, eventually } from "../../support/hosts/environment.js";
import { storeProbeImage } from "../../support/hosts/probe-image.js";
import { Probe } from "../../support/hosts/probe.js";

const environment = new Environment("e2e-bench");
const pairs = Number(process.env["BENCH_PAIRS"] ?? 10);
const count = Number(process.env["BENCH_GROUPS"] ?? 100);
const results: Record<string, unknown> = {};
let probe: Probe;
let images: Images;
let image: SealObserved;

/** A second containerd, with upstream's overlayfs snapshotter, which unpacks layers as files. */
const unsealed = { address: "/run/bench/containerd.sock", config: "/run/bench/config.toml" };
const configuration = `version = 4
root = "/var/lib/palisade/bench"
state = "/run/bench/state"
disabled_plugins = ["io.containerd.cri.v1.images", "io.containerd.cri.v1.runtime", "io.containerd.grpc.v1.cri"]
[plugins."io.containerd.server.v1.native"]
  address = "${unsealed.address}"
[plugins."io.containerd.server.v1.ttrpc"]
  address = "${unsealed.address}.ttrpc"
`;

beforeAll(async () => {
  await environment.run("bin/palisade", ["keys", "init"]);
  const { digest } = await storeProbeImage(environment, "audit");
  environment.configure({ environment: "local", imageDigest: digest, memoryMiB: "4096" });
  const up = await environment.make("up");
  expect(up.exitCode, up.stderr).toBe(0);
  probe = await Probe.attach(environment);
  images = new Images(environment);
  image = await images.sealed("bench/probe", [{ "/probe": images.probe }, { "/data": Buffer.alloc(4 << 20, 1) }]);
});

afterAll(async () => {
  mkdirSync(reportsFolder, { recursive: true });
  writeFileSync(path.join(reportsFolder, "bench-groups.json"), `${JSON.stringify(results, undefined, 2)}\n`);
  probe?.close();
  const down = await environment.make("down");
  expect(down.exitCode, down.stderr).toBe(0);
  environment.remove();
});

const median = (numbers: number[]): number => {
  const sorted = [...numbers].sort((a, b) => a - b);
  return (sorted[Math.floor((sorted.length - 1) / 2)]! + sorted[Math.ceil((sorted.length - 1) / 2)]!) / 2;
};

it("starts a sealed container in at most 1.1 times the time of an unsealed one", async () => {
  const groups = new Groups(environment, images);
  // Puts the image into containerd as a group does.
  await groups.declare("bench", image.reference, ["/probe", "do", "sleep", "0"]);
  expect((await groups.outcome("bench")).exitCode).toBe(0);
  const { username, password, ca } = await images.access();
  await probe.run("/usr/libexec/palisade-probe", "do", "mkdir", "/run/bench");
  await probe.write(unsealed.config, configuration);
  await probe.write("/run/bench/ca.crt", ca!);
  await probe.run("/usr/libexec/palisade-probe", "do", "start", "/usr/bin/containerd", "--config", unsealed.config);
  const [server, rest] = [image.reference.split("/")[0]!, image.reference.slice(image.reference.indexOf("/"))];
  const reachable = `10.0.2.2:${server.split(":")[1]}${rest}`;
  await eventually("the image is unpacked", 120, async () => {
    const pulled = await probe.run(
      ...["/usr/bin/ctr", "--address", unsealed.address, "images", "pull", "--local", "--skip-verify", "--user"],
      ...[`${username}:${password}`, "--snapshotter", "overlayfs", reachable],
    );
    if (pulled.exitCode !== 0) throw new Error(pulled.stderr);
    return true;
  });
  let runs = 0;
  const start = async (sealed: boolean): Promise<number> => {
    const which = sealed
      ? ["--namespace", "k8s.io", "run", "--snapshotter", "sealed"]
      : ["--address", unsealed.address, "run", "--snapshotter", "overlayfs"];
    const began = performance.now();
    await probe.output(
      ...["/usr/bin/ctr", ...which, "--rm", "--runc-binary", "/usr/bin/crun"],
      ...[sealed ? image.reference : reachable, `bench-${++runs}`, "/probe", "do", "sleep", "0"],
    );
    return performance.now() - began;
  };
  for (const sealed of [true, false]) await start(sealed);
  const times: { sealed: number; unsealed: number }[] = [];
  for (let pair = 0; pair < pairs; pair++) {
    // Which one is first changes, as a machine gets slower and faster.
    const first = pair % 2 === 0;
    const one = await start(first);
    const other = await start(!first);
    times.push(first ? { sealed: one, unsealed: other } : { sealed: other, unsealed: one });
  }
  const ratio = median(times.map((time) => time.sealed / time.unsealed));
  results["start"] = {
    pairs,
    sealedMs: median(times.map(({ sealed }) => sealed)),
    unsealedMs: median(times.map((time) => time.unsealed)),
    ratio,
    limit: 1.1,
    pass: ratio <= 1.1,
  };
  console.log(results["start"]);
  await groups.remove("bench");
  expect(ratio).toBeLessThanOrEqual(1.1);
});

it(`needs no device per container: ${count} groups that share their layers`, async () => {
  const groups = new Groups(environment, images);
  const look = async () => {
    const memory = Number(/MemAvailable:\s+(\d+)/.exec(await probe.read("/proc/meminfo"))![1]);
    const devices = (await probe.output("/usr/sbin/dmsetup", "ls")).trim().split("\n");
    return { memory, devices: devices.filter((line) => line.startsWith("palisade-layer-")).length };
  };
  const before = await look();
  const names = Array.from({ length: count }, (_, index) => `shared-${index}`);
  for (const name of names)
    await groups.declare(name, image.reference, ["/probe", "do", "sleep", "36000"], { restart: true });
  await eventually("all run", 3000, async () => {
    const layers = await lowerLayers(probe);
    // A pause container and one of its own for each.
    return layers.size >= 2 * count ? true : undefined;
  });
  const after = await look();
  results["sharing"] = {
    groups: count,
    devicesBefore: before.devices,
    devicesAfter: after.devices,
    devicesPerGroup: (after.devices - before.devices) / count,
    memoryPerGroupKiB: Math.round((before.memory - after.memory) / count),
  };
  console.log(results["sharing"]);
  for (const name of names) await groups.remove(name);
  expect(after.devices - before.devices).toBeLessThanOrEqual(image.rootHashes.length);
});
