/** The scripts that write, in Debian's rescue system (test/support/rescue) on a loop device. Needs root. */
import { execFileSync, spawnSync } from "node:child_process";
import { createHash, randomBytes } from "node:crypto";
import { closeSync, mkdtempSync, openSync, readSync, rmSync, writeFileSync, writeSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import { gzipSync } from "node:zlib";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { copyTo } from "../../command-plugin/remote-copy.js";
import { remoteShell } from "../../command-plugin/remote-command.js";
import { SshServer } from "../../command-plugin/testing/ssh-server.js";
import type { Operation } from "../../provider/backends/index.js";
import { diskId } from "./disks.js";
import { enrollScript, firmwareScript, inventoryScript, requestScript, workFolder, writeScript } from "./scripts.js";

const minutes = 60_000;
const folder = mkdtempSync(path.join(tmpdir(), "palisade-metal-"));
const file = path.join(folder, "disk.raw");
let server: SshServer;
let device: string;
let image: Buffer;
/** Of its partition table. */
let imageId: string;

const operation = { signal: new AbortController().signal, log() {}, status() {} } as unknown as Operation;
const run = (script: string): Promise<string> => remoteShell(operation, script, server.connection());

beforeAll(async () => {
  server = await SshServer.start();
  execFileSync("truncate", ["--size=9G", file]);
  device = execFileSync("losetup", ["--find", "--show", "--partscan", file], { encoding: "utf8" }).trim();
  image = await makeImage();
  imageId = await run("sfdisk --disk-id /tmp/image");
  await run(`mkdir -p ${workFolder}; mount -t tmpfs -o size=64m tmpfs ${workFolder}`);
}, 10 * minutes);

afterAll(async () => {
  await server.stop();
  execFileSync("losetup", ["--detach", device]);
  rmSync(folder, { recursive: true });
});

/** A disk image with a partition table, as the host's is one. */
async function makeImage(): Promise<Buffer> {
  const encoded = await run(`
cd /tmp
head -c ${5 * 1024 * 1024 + 512} /dev/urandom >image
printf 'label: gpt\\nstart=2048, size=2048, type=uefi\\nstart=4096, size=4096\\n' | sfdisk --quiet --wipe always image
base64 -w 0 image`);
  return Buffer.from(encoded, "base64");
}

const sha256 = (data: Buffer): string => createHash("sha256").update(data).digest("hex");

const options = (extra: Partial<Parameters<typeof writeScript>[0]> = {}) => ({
  device,
  serial: "",
  wwn: "",
  mayOverwrite: false,
  sha256: sha256(image),
  size: image.length,
  ...extra,
});

/** Bytes of the disk. */
function onDisk(start: number, length: number): Buffer {
  const descriptor = openSync(file, "r");
  const bytes = Buffer.alloc(length);
  readSync(descriptor, bytes, 0, length, start);
  closeSync(descriptor);
  return bytes;
}

async function send(data: Buffer): Promise<void> {
  const archive = path.join(folder, "image.gz");
  writeFileSync(archive, gzipSync(data));
  await copyTo(operation, server.connection(), { path: archive }, `${workFolder}/image.gz`);
}

it.each([
  ["inventory", inventoryScript],
  ["write", writeScript({ device: "/dev/it's", serial: "a'b", wwn: "", mayOverwrite: true, sha256: "0", size: 1 })],
  ["firmware", firmwareScript],
  ["request", requestScript("/dev/sda")],
  ["enroll", enrollScript("/dev/sda")],
])("%s is a POSIX shell script", (_name, script) => {
  const checked = spawnSync("sh", ["-n"], { input: script, encoding: "utf8" });
  expect(checked.stderr).toBe("");
});

describe("writing", () => {
  it("says when the image is not there any more", async () => {
    await expect(run(writeScript(options()))).rejects.toThrow("the host's image is not in the rescue system");
  });

  it("refuses another disk than the inventory's, and one with a content", async () => {
    await send(image);
    await expect(run(writeScript(options({ serial: "S-1" })))).rejects.toThrow("is another disk than in the inventory");
    await run(`mkfs.ext4 -q -F ${device}`);
    const before = onDisk(0, 1 << 20);
    await expect(run(writeScript(options()))).rejects.toThrow("has a content: ext4. Nothing was written");
    expect(onDisk(0, 1 << 20).equals(before)).toBe(true);
  });

  it("writes, reads back, and adds a partition for the state", async () => {
    const said = await run(writeScript(options({ mayOverwrite: true })));
    expect(said).toContain(`sha256:${sha256(image)}`);
    expect(onDisk(1 << 20, image.length - (1 << 20)).equals(image.subarray(1 << 20))).toBe(true);
    expect(await table()).toMatchObject({
      id: diskId,
      partitions: [{ start: 2048 }, { start: 4096 }, { start: 8388608, name: "palisade-state" }],
    });
  }, 60_000);

  it("goes on after it was broken off in the middle", async () => {
    // As it looks then: the claim in the first MiB, half of the rest.
    await run(`printf 'label: gpt\\nlabel-id: ${diskId}\\n' | sfdisk --quiet --wipe always ${device}`);
    writeAt(1 << 20, randomBytes(1 << 20));
    await run(writeScript(options()));
    expect(onDisk(1 << 20, image.length - (1 << 20)).equals(image.subarray(1 << 20))).toBe(true);
    expect((await table()).partitions).toHaveLength(3);
  }, 60_000);

  it("goes on after it was broken off behind the image's own partition table, and not when others made theirs", async () => {
    await run(`sfdisk --quiet --disk-id ${device} 11111111-1111-4111-8111-111111111111`);
    await expect(run(writeScript(options()))).rejects.toThrow("has a content");
    await run(`sfdisk --quiet --disk-id ${device} ${imageId}`);
    await run(writeScript(options()));
    expect((await table()).partitions).toHaveLength(3);
  }, 60_000);

  it("does not make the disk startable when the image is another one", async () => {
    const wrong = Buffer.from(image);
    wrong[2 << 20]! ^= 1;
    await send(wrong);
    await run(`wipefs --all --quiet ${device}`);
    await expect(run(writeScript(options()))).rejects.toThrow(/gives back is sha256:[0-9a-f]+, the image is/);
    // A table without a partition: no firmware starts from it. With the image itself there are three.
    expect((await table()).partitions ?? []).toEqual([]);
  }, 60_000);
});

async function table(): Promise<{ id: string; partitions?: object[] }> {
  const { partitiontable } = JSON.parse(await run(`sfdisk --json ${device}`)) as { partitiontable: { id: string } };
  return partitiontable;
}

function writeAt(offset: number, data: Buffer): void {
  const descriptor = openSync(device, "r+");
  writeSync(descriptor, data, 0, data.length, offset);
  closeSync(descriptor);
}
