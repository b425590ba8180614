/**
 * Sealed layers mean what containerd's own unpacking of the same archives gives. Mounts file systems, so it needs root.
 */
import { createHash } from "node:crypto";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { defaultCacheDirectory } from "../../../shared/directories.js";
import { run } from "../../../provider/system/command.js";
import { digestOf } from "../../../provider/local/registry/digest.js";
import { makeLayer } from "../../../provider/local/sealing/layer.js";
import { ImageLayers } from "../../../provider/local/sealing/layers-below.js";
import { archiveOf, bytesOf, paxHeader, type Entry } from "../../../provider/local/sealing/testing/archives.js";
import { sealTools, type SealTools } from "../../../provider/local/sealing/tools.js";

type Layer = Entry[] | Buffer;
interface Files {
  [path: string]: { mode: string; owner: string; size?: number; sameAs?: string; target?: string };
}
interface Result {
  files?: Files;
  error?: string;
}

const folder = (name: string, more: Partial<Entry> = {}): Entry => ({ name: `${name}/`, ...more });
const file = (name: string, more: Partial<Entry> = {}): Entry => ({ name, content: name, ...more });
const link = (name: string, linkname: string, more: Partial<Entry> = {}): Entry => ({ name, linkname, ...more });
const hardLink = (name: string, linkname: string, more: Partial<Entry> = {}) =>
  link(name, linkname, { flag: "1", ...more });
const whiteout = (name: string): Entry => ({ name });
const xattr = (name: string, value: string | Buffer) => ({ pax: { [`SCHILY.xattr.${name}`]: value } });
const block = (count: number) => Buffer.alloc(count * 512);

const base: Entry[] = [
  folder("./"),
  folder("etc", { mode: 0o750, uid: 3, gid: 4, ...xattr("user.of", "base") }),
  file("etc/passwd"),
  folder("app", { mode: 0o711 }),
  file("app/config", { mode: 0o640, uid: 7 }),
  folder("app/deep"),
  file("app/deep/one"),
  link("lib", "usr/lib"),
  link("absolute", "/usr/lib"),
  link("dangling", "not/there"),
  link("up", "../../../etc"),
  folder("usr"),
  folder("usr/lib", { mode: 0o701 }),
  file("usr/lib/tool", {
    mode: 0o4755,
    ...xattr("security.capability", Buffer.from("0100000200040000000000000000000000000000", "hex")),
  }),
  hardLink("usr/lib/same", "usr/lib/tool", { mode: 0o4755 }),
];
const long = `long/${"d".repeat(90)}/${"e".repeat(90)}/${"f".repeat(120)}`;
const cpu = { content: "x".repeat(700) };

/** Layers, bottom first. */
const corpus: Record<string, Layer[]> = {
  "a base": [base],
  "implicit folders over nothing": [[file("etc/nginx/nginx.conf")]],
  "implicit folders over described ones": [base, [file("etc/nginx/nginx.conf"), file("app/deep/two")]],
  "implicit folders over implicit ones": [[file("a/b/c")], [file("a/b/d")], [file("a/x")]],
  "implicit folders over what an upper layer changed": [
    base,
    [folder("app", { mode: 0o700, uid: 9 })],
    [file("app/more")],
  ],
  "implicit folders over a removed one": [base, [whiteout(".wh.app")], [file("app/more")]],
  "implicit folders described afterwards": [[file("a/b"), folder("a", { mode: 0o1777, uid: 5 })]],
  "a folder described twice": [
    [folder("a", xattr("user.one", "1")), file("a/f"), folder("a", { mode: 0o700, ...xattr("user.two", "2") })],
  ],
  "a whiteout and a new folder": [base, [whiteout(".wh.app"), folder("app"), file("app/new")]],
  "a whiteout and a new implicit folder": [base, [whiteout(".wh.app"), file("app/new")]],
  "a whiteout and a new file": [base, [whiteout(".wh.app"), file("app")]],
  "a new folder and a whiteout": [base, [folder("app"), file("app/new"), whiteout(".wh.app")]],
  "a new file and a whiteout": [
    base,
    [file("app/new"), whiteout("app/.wh.new"), file("etc/new"), whiteout("etc/.wh.new")],
  ],
  "a described folder in a replaced one": [[folder("a"), folder("a/b"), file("a")]],
  "a described folder replaced by a link": [[folder("a"), folder("b"), link("a", "b"), folder("c"), link("c", "none")]],
  "a whiteout between two folders": [
    base,
    [folder("app"), file("app/a"), whiteout(".wh.app"), folder("app"), file("app/b")],
  ],
  "whiteouts of files": [base, [whiteout("app/.wh.config"), whiteout("etc/.wh.passwd"), whiteout(".wh.lib")]],
  "a whiteout of nothing": [base, [whiteout(".wh.none"), whiteout("none/.wh.none")]],
  "a whiteout through a link": [base, [whiteout("lib/.wh.tool")]],
  "a whiteout with content": [base, [{ name: "app/.wh.config", ...cpu }, file("after")]],
  "a whiteout that is a folder": [base, [folder("app/.wh.config")]],
  "AUFS's own files": [base, [whiteout(".wh..wh.aufs"), file("after")]],
  "an opaque folder": [base, [folder("app"), whiteout("app/.wh..wh..opq"), file("app/new")]],
  "an opaque marker at the end": [
    base,
    [folder("app"), file("app/new"), folder("app/deep"), file("app/deep/two"), whiteout("app/.wh..wh..opq")],
  ],
  "an opaque marker after an implicit folder": [
    base,
    [file("app/deep/two"), file("app/new"), whiteout("app/.wh..wh..opq")],
  ],
  "two opaque markers": [base, [whiteout("app/.wh..wh..opq"), file("app/i/two"), whiteout("app/.wh..wh..opq")]],
  "an opaque implicit folder": [base, [whiteout("app/.wh..wh..opq"), file("app/new")]],
  "an opaque root": [base, [whiteout(".wh..wh..opq"), folder("etc"), file("etc/new")]],
  "a folder replaced by a file and the other way": [base, [file("app"), folder("etc/passwd"), file("etc/passwd/x")]],
  "a folder replaced by a file and a folder again": [base, [file("app")], [folder("app"), file("app/new")]],
  "the same within a layer": [base, [file("app"), folder("app"), file("app/new")]],
  "a file twice": [[file("a", { content: "first" }), file("a", { content: "second", mode: 0o600 })]],
  "a file and a link of one name": [
    base,
    [link("a", "b"), file("a"), file("etc/passwd", { content: "x" }), link("etc/passwd", "y")],
  ],
  "folders that are links below": [
    base,
    [file("lib/new"), file("absolute/second"), file("up/third"), file("dangling/fourth")],
  ],
  "folders that are links in the layer": [
    [folder("real", { mode: 0o700 }), link("alias", "real"), file("alias/in"), file("alias/deep/in")],
  ],
  "a folder in the place of a link": [base, [folder("lib"), file("lib/new")]],
  "hard links": [
    [file("a", { mode: 0o600 }), hardLink("b", "a", { mode: 0o600 }), hardLink("c/d", "./b", { mode: 0o600 })],
  ],
  "a hard link that says something else": [
    [file("a", { mode: 0o600 }), hardLink("b", "a", { mode: 0o755, uid: 8, mtime: 9 })],
  ],
  "a hard link whose first name goes": [
    [file("a"), hardLink("b", "a"), hardLink("c", "b"), file("a", { content: "new" })],
  ],
  "a hard link to a symbolic one": [[link("a", "somewhere"), hardLink("b", "a", { mode: 0o600 })]],
  "a hard link through a symbolic one": [base, [hardLink("new", "lib/tool", { mode: 0o755 })]],
  "a hard link with a size": [[file("a"), hardLink("b", "a", { size: 700 }), file("c")]],
  "a hard link to a file below": [base, [hardLink("etc/same", "etc/passwd")]],
  "a hard link to a file below that has two names": [base, [hardLink("etc/tool", "/usr/lib/same", { mode: 0o4755 })]],
  "a hard link to a file two layers below": [
    base,
    [file("other")],
    [hardLink("a", "app/config", { mode: 0o640, uid: 7 })],
  ],
  "a hard link to a sparse file below": [[sparse("s")], [hardLink("t", "s")]],
  "a hard link to what a whiteout removed": [base, [whiteout("etc/.wh.passwd"), hardLink("a", "etc/passwd")]],
  "a hard link to a folder": [[folder("a"), hardLink("b", "a")]],
  "a hard link to itself": [[file("a"), hardLink("a", "a")]],
  "a hard link to nothing": [base, [hardLink("a", "nothing")]],
  "paths that lead out": [
    base,
    [file("../../etc/out"), file("/abs/olute"), file("a/../b"), file("x/../../y"), file("./dot/./x")],
  ],
  "links that lead out": [[link("out", "../../.."), file("out/in"), hardLink("h", "../../out/in")]],
  "links in a circle": [[link("a", "b"), link("b", "a"), file("a/x")]],
  "entries for the root": [
    [folder("./", { mode: 0o700, uid: 5 }), folder("/", { mode: 0o711 }), file("..", {}), file("a")],
  ],
  "a file as a folder": [[file("a"), file("a/b")]],
  "a file as a folder, below": [base, [file("etc/passwd/x")]],
  "a whiteout without a name": [[whiteout(".wh.")]],
  "whiteouts of . and ..": [[whiteout("a/.wh..")]],
  "a whiteout of the parent": [[whiteout("a/.wh...")]],
  "special files": [
    [
      { name: "tty", flag: "3", major: 5, minor: 1, mode: 0o620, gid: 5 },
      { name: "disk", flag: "4", major: 259, minor: 70000 },
      { name: "pipe", flag: "6", mode: 0o600 },
    ],
  ],
  "setuid, setgid and sticky": [
    [file("a", { mode: 0o4755 }), file("b", { mode: 0o2755, gid: 9 }), folder("c", { mode: 0o1777 })],
  ],
  "devices that overlays take for whiteouts": [[folder("d"), { name: "d/zero", flag: "3", major: 0, minor: 1 }]],
  "extended attributes": [
    [
      file("a", {
        pax: { "SCHILY.xattr.user.binary": Buffer.from([0, 255, 10, 61, 128]), "SCHILY.xattr.user.empty": "" },
      }),
      file("b", {
        pax: {
          "SCHILY.xattr.trusted.overlay.opaque": "y",
          "SCHILY.xattr.other.name": "x",
          "LIBARCHIVE.xattr.user.l": "eA",
        },
      }),
      folder("c", { pax: { "SCHILY.xattr.trusted.overlay.opaque": "y", "SCHILY.xattr.user.c": "c" } }),
      link("d", "a", xattr("user.not", "for links")),
    ],
  ],
  "an overlay's own attributes": [
    base,
    [folder("app", xattr("trusted.overlay.opaque", "y")), folder("usr", xattr("trusted.overlay.redirect", "/app"))],
  ],
  "names of PAX": [
    [
      file("short", { pax: { path: long } }),
      link("l", "x", { pax: { linkpath: long } }),
      file("ü", { pax: { path: "ä/ö" } }),
    ],
  ],
  "names of GNU": [
    Buffer.concat([
      bytesOf({ name: "././@LongLink", flag: "L", content: `${long}\0`, magic: "gnu" }),
      bytesOf(file("cut", { magic: "gnu", content: "long" })),
      bytesOf({ name: "././@LongLink", flag: "K", content: `${long}\0`, magic: "gnu" }),
      bytesOf(link("gnu", "cut", { magic: "gnu" })),
      archiveOf([file("next", { magic: "gnu" })]),
    ]),
  ],
  "a prefix": [[file("name", { prefix: "a/prefix" }), file("old", { magic: "gnu", prefix: "of go/before/1.8" })]],
  "names that are not UTF-8": [[file("x", { pax: { path: Buffer.from([0x61, 0xff, 0xfe]) } })]],
  "names with line breaks and spaces": [[file("a\nb"), file(" c "), file("=d=")]],
  "the oldest format": [
    [file("a", { magic: "v7" }), { name: "b/", flag: "\0", magic: "v7", mode: 0o711 }, file("c", { flag: "\0" })],
  ],
  "a name that ends in a slash but is no folder's": [[{ name: "a/", flag: "0", content: "a" }]],
  "large numbers": [
    [
      file("a", { uid: 3_000_000, gid: 4_000_000_000, isBinary: true }),
      file("b", { pax: { uid: "3000000", gid: "1" } }),
    ],
  ],
  times: [
    [
      file("a", { mtime: 0 }),
      file("b", { pax: { mtime: "1700000000.25" } }),
      file("c", { pax: { mtime: "-5.5" } }),
      file("d", { pax: { mtime: "20000000000" } }),
    ],
  ],
  "a size of PAX": [[file("a", { ...cpu, size: 0, pax: { size: "700" } }), file("b")]],
  "global headers": [
    Buffer.concat([paxHeader({ path: "wrong", mtime: "5", "SCHILY.xattr.user.g": "g" }, "g"), archiveOf([file("a")])]),
  ],
  "a sparse file of format 1.0": [[sparse("s"), file("after")]],
  "a sparse file of format 0.1": [
    [
      file("x", {
        content: "abcdef",
        pax: {
          "GNU.sparse.major": "0",
          "GNU.sparse.minor": "1",
          "GNU.sparse.name": "named",
          "GNU.sparse.size": "9000",
          "GNU.sparse.numblocks": "2",
          "GNU.sparse.map": "0,3,8000,3",
        },
      }),
    ],
  ],
  "a sparse file that is not whole": [
    [file("x", { content: "abc", pax: { "GNU.sparse.map": "0,3,8000,3", "GNU.sparse.size": "9000" } })],
  ],
  "a sparse file in GNU's old format": [[{ name: "s", flag: "S", magic: "gnu" }]],
  "a type that nobody knows": [[{ name: "s", flag: "7" }]],
  nothing: [base, Buffer.alloc(0)],
  "an end only": [base, block(2), block(1)],
  "no end": [archiveOf([file("a"), file("b", cpu)], Buffer.alloc(0))],
  "no end, and the last block not full": [archiveOf([file("b", cpu)], Buffer.alloc(0)).subarray(0, 512 + 700)],
  "more after the end": [archiveOf([file("a")], Buffer.concat([block(2), Buffer.from("anything")]))],
  "one block of zeros": [Buffer.concat([bytesOf(file("a")), block(1)])],
  "one block of zeros between files": [Buffer.concat([bytesOf(file("a")), block(1), archiveOf([file("b")])])],
  "cut off within a file": [archiveOf([file("a", { content: "x".repeat(5000) })]).subarray(0, 3000)],
  "cut off within a header": [archiveOf([file("a")]).subarray(0, 300)],
  "cut off within an extended header": [paxHeader({ path: "p".repeat(900) }).subarray(0, 800)],
  "a file larger than the archive": [archiveOf([{ name: "a", size: 2 ** 41, isBinary: true }])],
  "a negative size": [archiveOf([{ name: "a", content: "abc", pax: { size: "-3" } }])],
  "a wrong checksum": [Buffer.concat([Buffer.from("xx"), archiveOf([file("a")]).subarray(2)])],
  "what is no archive": [Buffer.from("<html>".repeat(500))],
  "a wrong record": [
    Buffer.concat([bytesOf({ name: "h", flag: "x", content: "99 path=a\n" }), archiveOf([file("a")])]),
  ],
  "the same layer again": [base, [], [file("app/config", { content: "changed" }), whiteout("etc/.wh.passwd")], base],
};

/** Blocks at its beginning and behind a hole. */
function sparse(name: string): Entry {
  const map = Buffer.concat([Buffer.from("2\n0\n512\n1000000\n6\n"), Buffer.alloc(512 - 18)]);
  const content = Buffer.concat([map, Buffer.alloc(512, "s"), Buffer.from("behind")]);
  const records = {
    "GNU.sparse.major": "1",
    "GNU.sparse.minor": "0",
    "GNU.sparse.name": name,
    "GNU.sparse.realsize": "1000010",
  };
  return { name: `GNUSparseFile.0/${name}`, content, pax: records };
}

/** Those of the corpus that containerd refuses. */
const refused = [
  "a new folder and a whiteout",
  "a described folder in a replaced one",
  "a described folder replaced by a link",
  "a hard link to what a whiteout removed",
  "a hard link to a folder",
  "a hard link to itself",
  "a hard link to nothing",
  "links in a circle",
  "a file as a folder",
  "a file as a folder, below",
  "a whiteout without a name",
  "whiteouts of . and ..",
  "a whiteout of the parent",
  "a sparse file that is not whole",
  "a sparse file in GNU's old format",
  "a type that nobody knows",
  "one block of zeros between files",
  "cut off within a file",
  "cut off within a header",
  "cut off within an extended header",
  "a file larger than the archive",
  "a negative size",
  "a wrong checksum",
  "what is no archive",
  "a wrong record",
];

/** What an overlay cannot say, or nobody has: refused, and containerd takes it. */
const refusedOnPurpose: Record<string, [Layer[], RegExp]> = {
  "a folder that looks like a whiteout": [[[file(".wh.folder/x")]], /a folder whose name begins with \.wh\./],
  "a file larger than hosts take": [
    [[{ ...sparse("s"), pax: { ...sparse("s").pax, "GNU.sparse.realsize": String(2 ** 41) } }]],
    /more than the 68719476736 that hosts take/,
  ],
};

/** What veritysetup would say. */
const noTree = `Root hash: ${"0".repeat(64)}`;

const tarOf = (layer: Layer) => (Buffer.isBuffer(layer) ? layer : archiveOf(layer));

describe.runIf(process.getuid?.() === 0)("a sealed image", () => {
  let work: string;
  let tools: SealTools;
  const unpacked = new Map<string, Result>();
  const sealed = new Map<string, Result>();
  /** Layers with nothing below, which many cases share. */
  const lowest = new Map<string, string>();

  /** Makes an image's layers; returns their blobs. */
  async function seal(layers: Layer[], place: string): Promise<string[]> {
    await mkdir(place, { recursive: true });
    const tars = layers.map(tarOf);
    const all = new ImageLayers(
      tars.map((tar) => ({ diffId: digestOf(tar) })),
      async (index) => once(tars[index]!),
      place,
    );
    try {
      const files: string[] = [];
      for (const [index, tar] of tars.entries()) {
        const diffId = digestOf(tar);
        const present = index === 0 ? lowest.get(diffId) : undefined;
        const blob = present ?? path.join(place, `${index}.erofs`);
        if (!present) await makeLayer(tools, diffId, once(tar), blob, place, undefined, all.below(index));
        if (index === 0) lowest.set(diffId, blob);
        files.push(blob);
      }
      return files;
    } finally {
      await all.close();
    }
  }

  beforeAll(async () => {
    work = await mkdtemp(path.join(tmpdir(), "palisade-unpacked-"));
    const real = await sealTools(defaultCacheDirectory());
    // The file system is what is looked at, so no hash tree is made.
    tools = { ...real, run: async (tool, ...rest) => (tool === "veritysetup" ? noTree : real.run(tool, ...rest)) };
    const program = path.join(work, "unpack");
    await run("go", ["build", "-o", program, "./unpack"], { directory: path.resolve("hosts/containerd") });
    const cases: { name: string; into: Map<string, Result>; archives?: string[]; images?: string[] }[] = [];
    for (const [number, [name, layers]] of Object.entries(corpus).entries()) {
      const place = path.join(work, String(number));
      await mkdir(place);
      const archives: string[] = [];
      for (const [index, layer] of layers.entries()) {
        archives.push(path.join(place, `${index}.tar`));
        await writeFile(archives[index]!, tarOf(layer));
      }
      cases.push({ name, into: unpacked, archives });
      try {
        cases.push({ name, into: sealed, images: await seal(layers, path.join(place, "sealed")) });
      } catch (error) {
        sealed.set(name, { error: (error as Error).message });
      }
    }
    const input = JSON.stringify(cases.map(({ archives, images }) => ({ archives, images })));
    const results = JSON.parse(await run(program, [], { input: once(Buffer.from(input)) })) as Result[];
    results.forEach((result, index) => cases[index]!.into.set(cases[index]!.name, result));
  });
  afterAll(() => rm(work, { recursive: true, force: true }));

  it.each(Object.keys(corpus))("is what containerd unpacks: %s", (name) => {
    const [theirs, ours] = [unpacked.get(name)!, sealed.get(name)!];
    if (theirs.error !== undefined)
      expect(ours.error, `containerd: ${theirs.error}`).toMatch(/^layer sha256:.* cannot be sealed: /);
    else expect(ours).toEqual(theirs);
  });

  it("has the right answers where the sealer and containerd once differed", () => {
    // The answers that the faults were about, by themselves.
    const of = (name: string) => sealed.get(name)!.files!;
    expect(of("implicit folders over described ones")["etc"]).toMatchObject({ mode: "040750", owner: "3:4" });
    expect(of("implicit folders over nothing")).toMatchObject({
      ".": { mode: "040755" },
      "etc/nginx": { mode: "040755", owner: "0:0" },
    });
    expect(Object.keys(of("a whiteout and a new folder")).filter((name) => name.startsWith("app/"))).toEqual([
      "app/new",
    ]);
    expect(of("a hard link to a file below")).toMatchObject({ "etc/passwd": {}, "etc/same": { sameAs: "etc/passwd" } });
    expect(of("nothing")).toEqual(of("a base"));
    expect(sealed.get("cut off within a file")!.error).toMatch(
      /the archive is cut off: "a" has 5000 bytes, and 2488 are left/,
    );
    expect([...unpacked].filter(([, { error }]) => error !== undefined).map(([name]) => name)).toEqual(refused);
  });

  it.each(Object.entries(refusedOnPurpose))("is refused: %s", async (_name, [layers, message]) => {
    await expect(seal(layers, path.join(work, "refused"))).rejects.toThrow(message);
  });

  it("is the same each time, whether the layers below are known or not", async () => {
    const hash = async (place: string) => {
      lowest.clear();
      const blobs = await seal([base, [folder("app"), file("app/x")]], path.join(work, place));
      const content = await run("sha256sum", blobs);
      return createHash("sha256")
        .update(content.replaceAll(path.join(work, place), ""))
        .digest("hex");
    };
    expect(await hash("one")).toBe(await hash("two"));
  });
});

async function* once(bytes: Buffer): AsyncGenerator<Buffer> {
  // In pieces that do not end where entries do.
  for (let at = 0; at < bytes.length; at += 700) yield bytes.subarray(at, at + 700);
}
