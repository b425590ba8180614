/** qcow2 files, by qemu-img. */
import { chmod } from "node:fs/promises";
import * as v from "valibot";
import { decode, object } from "../../../../shared/decode.js";
import { run } from "../../../system/command.js";

const gibibyte = 1024 ** 3;

/** Makes an empty disk for its owner only; space is taken as it is written. */
export async function createDisk(path: string, sizeGiB: number, signal?: AbortSignal): Promise<void> {
  await run("qemu-img", ["create", "-q", "-f", "qcow2", path, `${sizeGiB}G`], { signal });
  await chmod(path, 0o600);
}

/** Grows a disk that no machine uses. */
export async function resizeDisk(path: string, sizeGiB: number, signal?: AbortSignal): Promise<void> {
  await run("qemu-img", ["resize", "-q", "-f", "qcow2", path, `${sizeGiB}G`], { signal });
}

/** Size of a disk as its guest sees it, also while a machine uses it. */
export async function diskSizeGiB(path: string): Promise<number> {
  const information = await run("qemu-img", ["info", "--force-share", "--output=json", "-f", "qcow2", path]);
  const schema = object({ "virtual-size": v.number() });
  return decode(schema, information, `qemu-img info ${path}`)["virtual-size"] / gibibyte;
}
