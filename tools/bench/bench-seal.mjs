// Measures what sealing an image costs beside the tools that it cannot do without: mkfs.erofs and veritysetup alone,
// with the same options on the same layers, in alternating runs. Sealing is all that a layer goes through between
// registry and registry: digests checked, file system and hash tree made, root hash signed, seal manifest signed;
// nothing is cached. Prints the table, also as build/reports/bench-seal.json. Exits with 1 when the limit is missed.
//
//   BENCH_PAIRS  pairs of runs; default 7
import { createReadStream } from "node:fs";
import { mkdir, mkdtemp, rm, stat, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { fileURLToPath } from "node:url";

const root = path.resolve(path.dirname(fileURLToPath(import.meta.url)), "../..");
const provider = path.join(root, "dist/provider");
const { packageLayer } = await import(path.join(provider, "local/image-builder/package-layer.js"));
const { defaultCacheDirectory } = await import(path.join(root, "dist/shared/directories.js"));
const { run } = await import(path.join(provider, "system/command.js"));
const { openSealing } = await import(path.join(provider, "local/sealing/sealing.js"));
const { LayerCache } = await import(path.join(provider, "local/sealing/layer-cache.js"));
const { verifiedTar } = await import(path.join(provider, "local/sealing/verified-stream.js"));
const { imagePayload, keptEnvelope } = await import(path.join(provider, "local/sealing/seal-image.js"));

/** Times the tools alone. */
const limit = 1.1;
const pairs = Number(process.env.BENCH_PAIRS ?? 7);
const blockSize = 4096;

/** The image of `make up`: nginx and what it needs of Debian, as it is pushed. */
async function nginx(cacheDirectory) {
  const set = { suite: "bookworm", packages: ["nginx"] };
  const { file, digest, diffId } = await packageLayer(
    set,
    cacheDirectory,
    () => undefined,
    new AbortController().signal,
  );
  return [{ file, mediaType: "application/vnd.oci.image.layer.v1.tar+gzip", digest, diffId }];
}

/** Keys that only this benchmark uses. */
async function keys(folder) {
  await run(path.join(root, "bin/palisade"), ["keys", "init"], { environment: { PALISADE_HOME: folder } });
  const key = (name) => ({
    certificateFile: path.join(folder, "keys", `${name}.crt`),
    keyFile: path.join(folder, "keys", `${name}.key`),
  });
  return { layerSigner: key("layers/layer"), sealSigner: key("layers/seal") };
}

async function seal(sealing, layers, cacheDirectory) {
  const cache = new LayerCache(cacheDirectory, sealing.tools);
  const sealed = [];
  for (const of of layers) {
    const openTar = async () => verifiedTar(of, createReadStream(of.file, { highWaterMark: 1024 * 1024 }));
    const { file, ...layer } = await cache.make(of.diffId, openTar);
    sealed.push({ of, layer, signature: await cache.signature({ file, ...layer }, sealing.layerSigner) });
  }
  const zero = `sha256:${"0".repeat(64)}`;
  const descriptor = { digest: zero, mediaType: "application/vnd.oci.image.manifest.v1+json", size: 0 };
  const image = { descriptor, config: zero, layers };
  await keptEnvelope({ ...sealing, cacheDirectory }, imagePayload(sealing, image, sealed));
  return sealed.map(({ layer }) => layer.hashOffset);
}

async function toolsAlone(tools, layers, folder) {
  const sizes = [];
  for (const [index, { file }] of layers.entries()) {
    const blob = path.join(folder, `${index}.erofs`);
    await tools.run(
      "mkfs.erofs",
      [
        ...[
          "--tar=f",
          "--ungzip",
          "--aufs",
          "--quiet",
          "-Enoinline_data",
          `-b${blockSize}`,
          "-zlz4",
          "-T0",
          "--mkfs-time",
        ],
        ...["-U00000000-0000-8000-8000-000000000000", blob, file],
      ],
      { directory: folder, environment: { TMPDIR: folder } },
    );
    const hashOffset = Math.ceil((await stat(blob)).size / blockSize) * blockSize;
    await truncate(blob, hashOffset);
    await tools.run("veritysetup", [
      ...["format", "--hash=sha256", "--format=1", `--data-block-size=${blockSize}`, `--hash-block-size=${blockSize}`],
      ...[`--data-blocks=${hashOffset / blockSize}`, `--hash-offset=${hashOffset}`, `--salt=${"0".repeat(64)}`],
      ...["--uuid=00000000-0000-8000-8000-000000000000", blob, blob],
    ]);
    sizes.push(hashOffset);
  }
  return sizes;
}

/** How many seconds a call takes in a folder of its own, and what it returns. */
async function timed(work, call) {
  const folder = await mkdtemp(path.join(work, "run-"));
  const started = process.hrtime.bigint();
  const result = await call(folder);
  const seconds = Number(process.hrtime.bigint() - started) / 1e9;
  await rm(folder, { recursive: true });
  return { seconds, result };
}

function median(values) {
  const sorted = [...values].sort((a, b) => a - b);
  const middle = Math.floor(sorted.length / 2);
  return sorted.length % 2 === 1 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
}

const round = (value) => Math.round(value * 1000) / 1000;

const work = await mkdtemp(path.join(tmpdir(), "palisade-bench-seal-"));
try {
  const cacheDirectory = defaultCacheDirectory();
  const layers = await nginx(cacheDirectory);
  const sealing = await openSealing(await keys(path.join(work, "home")), {
    cacheDirectory,
    status: () => undefined,
    log: () => undefined,
  });
  const sealed = (folder) => seal(sealing, layers, folder);
  const alone = (folder) => toolsAlone(sealing.tools, layers, folder);
  // After a first read the files are in memory for both.
  const [first, second] = [await timed(work, sealed), await timed(work, alone)];
  if (String(first.result) !== String(second.result)) {
    throw new Error(
      `the file systems differ in size: ${first.result} bytes sealed, ${second.result} by the tools alone`,
    );
  }
  const runs = [];
  for (let pair = 0; pair < pairs; pair++) {
    // The two take turns at being first.
    const order = pair % 2 === 0 ? [sealed, alone] : [alone, sealed];
    const times = new Map();
    for (const call of order) times.set(call, (await timed(work, call)).seconds);
    runs.push({ sealing: times.get(sealed), tools: times.get(alone), ratio: times.get(sealed) / times.get(alone) });
  }
  const medians = { sealing: median(runs.map((one) => one.sealing)), tools: median(runs.map((one) => one.tools)) };
  const sizes = await Promise.all(layers.map(async ({ file }) => (await stat(file)).size));
  const report = {
    image: { layers: layers.length, compressedBytes: sizes.reduce((a, b) => a + b), fileSystemBytes: first.result },
    tools: sealing.tools.versions,
    runs: runs.map((one) => ({ sealing: round(one.sealing), tools: round(one.tools), ratio: round(one.ratio) })),
    ratioOfMedians: round(medians.sealing / medians.tools),
    medianOfRatios: round(median(runs.map(({ ratio }) => ratio))),
    limit,
  };
  report.pass = report.ratioOfMedians <= limit && report.medianOfRatios <= limit;
  const file = path.join(root, "build/reports/bench-seal.json");
  await mkdir(path.dirname(file), { recursive: true });
  await writeFile(file, `${JSON.stringify(report, undefined, 2)}\n`);
  console.log("| pair | sealing | mkfs.erofs + veritysetup | ratio |\n|---|---:|---:|---:|");
  for (const [index, one] of report.runs.entries()) {
    console.log(`| ${index + 1} | ${one.sealing.toFixed(2)} s | ${one.tools.toFixed(2)} s | ${one.ratio.toFixed(2)} |`);
  }
  const [a, b] = [medians.sealing.toFixed(2), medians.tools.toFixed(2)];
  console.log(`| median | ${a} s | ${b} s | ${report.ratioOfMedians.toFixed(2)} |`);
  const verdict = report.pass ? "within" : "over";
  console.log(`\nMedian of the ratios ${report.medianOfRatios.toFixed(2)}: ${verdict} the limit of ${limit}`);
  process.exitCode = report.pass ? 0 : 1;
} finally {
  await rm(work, { recursive: true, force: true });
}
