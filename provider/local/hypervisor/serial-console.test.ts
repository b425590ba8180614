import { appendFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { withFolder } from "../../system/testing.js";
import { SerialConsole } from "./serial-console.js";

it("reads what is new, with the phase that it shows", async () => {
  await withFolder(async (folder) => {
    const file = join(folder, "serial.log");
    const serial = new SerialConsole(file);
    expect(await serial.read()).toBeUndefined();
    await writeFile(file, "Linux version 6.12\n");
    expect(await serial.read()).toEqual({ text: "Linux version 6.12\n", phase: "kernel" });
    expect(await serial.read()).toBeUndefined();
    await appendFile(file, "a driver\n");
    expect(await serial.read()).toEqual({ text: "a driver\n", phase: undefined });
  });
});

it("begins after what an earlier start has written", async () => {
  await withFolder(async (folder) => {
    const file = join(folder, "serial.log");
    const before = "palisade-initrd: starting systemd\n";
    await writeFile(file, before);
    const serial = new SerialConsole(file, before.length);
    expect(await serial.read()).toBeUndefined();
    await appendFile(file, "BdsDxe: loading\n");
    expect(await serial.read()).toEqual({ text: "BdsDxe: loading\n", phase: "firmware" });
  });
});
