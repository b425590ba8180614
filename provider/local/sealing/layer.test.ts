/**
 * What mkfs.erofs gets to see of a layer; that it means what containerd unpacks is tested in
 * test/layers/contract/unpacked-layers.test.ts.
 */
import { mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { extract } from "tar-stream";
import { afterEach, beforeEach, describe, expect, it } from "vitest";
import { defaultCacheDirectory } from "../../../shared/directories.js";
import { digestOf } from "../registry/digest.js";
import { makeLayer } from "./layer.js";
import { chainId, ImageLayers } from "./layers-below.js";
import { archiveOf, type Entry } from "./testing/archives.js";
import { noise } from "./testing/bench.js";
import { sealTools, type SealTools } from "./tools.js";

let folder: string;
beforeEach(async () => {
  folder = await mkdtemp(join(tmpdir(), "palisade-layer-"));
});
afterEach(() => rm(folder, { recursive: true, force: true }));

async function* once(bytes: Buffer): AsyncGenerator<Buffer> {
  yield bytes;
}

/** Tools that keep what they get. */
function fakeTools() {
  const given: Buffer[] = [];
  const tools: SealTools = {
    versions: { "mkfs.erofs": "1.8.6", veritysetup: "2.7.5", palisade: "test" },
    run: async (tool, args, options) => {
      if (tool === "veritysetup") return `Root hash: ${"0".repeat(64)}`;
      const chunks: Buffer[] = [];
      for await (const chunk of options!.input!) chunks.push(chunk);
      given.push(Buffer.concat(chunks));
      await writeFile(args.at(-1)!, "image");
      return "";
    },
  };
  return { tools, given };
}

interface Seen {
  name: string;
  mode?: number;
  uid?: number;
  gid?: number;
}

/** What mkfs.erofs gets of each layer of an image. */
async function seenOf(layers: Entry[][]): Promise<{ seen: Seen[][]; over: (string | undefined)[]; read: number[] }> {
  const { tools, given } = fakeTools();
  const tars = layers.map((layer) => archiveOf(layer));
  const diffIds = tars.map((tar) => digestOf(tar));
  const read: number[] = [];
  const open = async (index: number) => {
    read.push(index);
    return once(tars[index]!);
  };
  const all = new ImageLayers(
    diffIds.map((diffId) => ({ diffId })),
    open,
    folder,
  );
  const over: (string | undefined)[] = [];
  for (const [index, tar] of tars.entries()) {
    const file = join(folder, `${index}.erofs`);
    const layer = await makeLayer(tools, diffIds[index]!, once(tar), file, folder, undefined, all.below(index));
    over.push(layer.over);
  }
  await all.close();
  const seen = await Promise.all(given.map(entriesOf));
  return { seen, over, read };
}

async function entriesOf(tar: Buffer): Promise<Seen[]> {
  const archive = extract();
  archive.end(tar);
  const found: Seen[] = [];
  for await (const entry of archive) {
    const { name, mode = 0, uid = 0, gid = 0 } = entry.header;
    found.push({ name, mode, uid, gid });
    entry.resume();
  }
  return found;
}

const root = { name: "./", mode: 0o755, uid: 0, gid: 0 };

describe("a layer", () => {
  it("gives folders that it does not describe what the layer below gives them, else 0755 of root", async () => {
    const base: Entry[] = [{ name: "etc/", mode: 0o750, uid: 3, gid: 4 }];
    const { seen, over } = await seenOf([base, [{ name: "etc/nginx/nginx.conf" }]]);
    expect(seen[1]).toEqual([
      root,
      { name: "etc/", mode: 0o750, uid: 3, gid: 4 },
      { name: "etc/nginx/", mode: 0o755, uid: 0, gid: 0 },
      { name: "etc/nginx/nginx.conf", mode: 0o644, uid: 0, gid: 0 },
    ]);
    expect(over).toEqual([undefined, chainId([digestOf(archiveOf(base))])]);
  });

  it("has the root as containerd makes it, whatever its entry says", async () => {
    const { seen } = await seenOf([[{ name: "./", mode: 0o777, uid: 1000 }, { name: "a" }], [{ name: "b" }]]);
    expect(seen.map((entries) => entries[0])).toEqual([root, root]);
  });

  it("reads layers below only when it depends on them, and each once", async () => {
    const layers: Entry[][] = [
      [{ name: "app/" }, { name: "app/a" }],
      [{ name: "app/" }, { name: "app/.wh.a" }, { name: ".wh.b" }],
      [{ name: "app/c" }],
      [{ name: "app/", mode: 0o700 }, { name: "app/.wh..wh..opq" }, { name: "app/d" }],
      [{ name: "e", flag: "1", linkname: "app/d" }],
    ];
    const { read, over } = await seenOf(layers);
    expect(read).toEqual([0, 1, 2, 3]);
    expect(over.map((one) => one !== undefined)).toEqual([false, false, true, false, true]);
  });

  it.each<[string, Buffer, RegExp]>([
    [
      "is cut off",
      archiveOf([{ name: "a", content: "x".repeat(5000) }]).subarray(0, 3000),
      /"a" has 5000 bytes, and 2488/,
    ],
    [
      "has 2 TB by its header",
      archiveOf([{ name: "a", size: 2 ** 41, isBinary: true }]),
      /"a" has 2199023255552 bytes/,
    ],
    ["is no archive", Buffer.from("<html>".repeat(100)), /no tar header|no octal number/],
    [
      "links to nothing",
      archiveOf([{ name: "a", flag: "1", linkname: "b" }]),
      /"a" is a hard link to "b", which is not there/,
    ],
    ["has an unknown type", archiveOf([{ name: "a", flag: "7" }]), /"a" is of type "7"/],
  ])("that %s is refused before anything is made of it", async (_what, tar, message) => {
    const { tools, given } = fakeTools();
    const made = makeLayer(tools, digestOf(tar), once(tar), join(folder, "layer.erofs"), folder);
    await expect(made).rejects.toThrow(message);
    await expect(made).rejects.toThrow(`layer ${digestOf(tar)} cannot be sealed: `);
    expect(given).toEqual([]);
    expect(await readdir(folder)).toEqual([]);
  });

  it("with a wrong digest is refused before anything is made of it", async () => {
    const { tools, given } = fakeTools();
    const wrong = async function* () {
      yield archiveOf([{ name: "a" }]);
      throw new Error("the digest is another");
    };
    const file = join(folder, "layer.erofs");
    await expect(makeLayer(tools, digestOf(Buffer.alloc(0)), wrong(), file, folder)).rejects.toThrow("another");
    expect(given).toEqual([]);
  });

  it("that needs no mending gives the file system that mkfs.erofs makes of the archive itself", async () => {
    const tools = await sealTools(defaultCacheDirectory());
    const tar = archiveOf([
      { name: "./" },
      { name: "usr/", mode: 0o711, uid: 5 },
      { name: "usr/lib", linkname: "lib64", mode: 0o777 },
      {
        name: "usr/big",
        content: noise("big", 300_000),
        pax: { mtime: "1700000000.123456789", "SCHILY.xattr.user.a": "b" },
      },
      { name: "usr/same", flag: "1", linkname: "usr/big", pax: { mtime: "1700000000.123456789" } },
      { name: "usr/.wh.gone" },
      { name: "var/" },
      { name: "var/.wh..wh..opq" },
      { name: "var/device", flag: "3", major: 5, minor: 1 },
    ]);
    let args: string[] = [];
    const spy: SealTools = {
      ...tools,
      run: (tool, given, options) => {
        if (tool === "mkfs.erofs") args = given;
        return tools.run(tool, given, options);
      },
    };
    const file = join(folder, "layer.erofs");
    const { hashOffset } = await makeLayer(spy, digestOf(tar), once(tar), file, folder);
    const direct = join(folder, "direct.erofs");
    await tools.run("mkfs.erofs", [...args.slice(0, -1), direct], { directory: folder, input: once(tar) });
    const [ours, theirs] = [await readFile(file), await readFile(direct)];
    expect(ours.subarray(0, theirs.length).equals(theirs)).toBe(true);
    expect(hashOffset - theirs.length).toBeLessThan(4096);
  }, 60_000);
});
