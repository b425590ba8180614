import { spawnSync } from "node:child_process";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { run } from "../../../system/command.js";
import { withFolder } from "../../../system/testing.js";
import { AcceleratorChoice, probe } from "./accelerator.js";
import { probeDisk } from "./probe-guest.js";

const installed = (program: string) => spawnSync(program, ["--version"]).status === 0;
const hasAssembler = process.arch === "x64" && installed("as");
const hasQemu = installed("qemu-system-x86_64");

it.runIf(hasAssembler)("is what its source assembles to", async () => {
  await withFolder(async (folder) => {
    const [object, binary] = [join(folder, "probe.o"), join(folder, "probe.bin")];
    await run("as", ["-o", object, join(__dirname, "probe-guest.S")]);
    await run("ld", ["-Ttext", "0x7c00", "--oformat", "binary", "-o", binary, object]);
    expect(probeDisk().subarray(0, 512)).toEqual(await readFile(binary));
  });
});

it.runIf(hasQemu)("boots under emulation, where it always works", async () => {
  expect(await probe("tcg", undefined, 15_000)).toEqual({ works: true, reason: "" });
});

it.runIf(hasQemu)("has its answer for KVM kept for this boot of the machine", async () => {
  await withFolder(async (folder) => {
    const choice = new AcceleratorChoice(join(folder, "accelerator.json"));
    const first = await choice.choose("auto");
    const begin = Date.now();
    expect(await choice.choose("auto")).toEqual(first);
    expect(Date.now() - begin).toBeLessThan(1000);
    if (first.accelerator === "kvm") return;
    expect(first.reason).toMatch(/KVM does not work here/);
    await expect(choice.choose("kvm")).rejects.toThrow(/^acceleration: "kvm" does not work on this machine/);
    expect(await choice.choose("tcg")).toEqual({ accelerator: "tcg" });
  });
});
