import { chmod, mkdir, readFile, rm, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, it } from "vitest";
import { withFolder } from "../../system/testing.js";
import { runBuildScript } from "./build-script.js";

/** Runs a script in place of build.sh; its arguments are `--mode enforce --output <folder>`. */
async function build(folder: string, lines: string[]) {
  const [script, output] = [join(folder, "build.sh"), join(folder, "output")];
  await mkdir(output);
  await writeFile(script, ["#!/bin/bash", "set -e", ...lines, ""].join("\n"));
  await chmod(script, 0o755);
  const steps: string[] = [];
  const kept = join(folder, "built");
  const signal = AbortSignal.timeout(10_000);
  const failure = await runBuildScript(
    script,
    ["--mode", "enforce"],
    output,
    kept,
    (step) => void steps.push(step),
    signal,
  ).then(
    () => undefined,
    (error: Error) => error,
  );
  // As the caller does.
  await rm(output, { recursive: true });
  return { steps, failure, kept };
}

it("tells a failed build's last lines, and where all of it is", async () => {
  await withFolder(async (folder) => {
    const { steps, failure, kept } = await build(folder, [
      'echo "[  3 s] system: packages"',
      'for line in $(seq 50); do echo "mkosi $line" >>"$4/build.log"; done',
      'tail -n 2 "$4/build.log" >&2',
      'echo "build.sh: mkosi failed; the whole log is $4/build.log" >&2',
      "exit 1",
    ]);
    expect(steps).toEqual(["system: packages"]);
    expect(failure?.message).toMatch(/ended with exit code 1; its last lines:\n.*mkosi 49\nmkosi 50\n/s);
    const named = [...failure!.message.matchAll(/log(?: is|:) (\S+)/g)].map(([, file]) => file!);
    expect(named).toEqual([`${kept}.mkosi.log`, `${kept}.log`]);
    for (const file of named) expect((await stat(file)).size).toBeGreaterThan(0);
    expect(await readFile(named[0]!, "utf8")).toMatch(/^mkosi 1\n.*mkosi 50\n$/s);
  });
});

it("fails as well before mkosi has said anything", async () => {
  await withFolder(async (folder) => {
    const { failure, kept } = await build(folder, ['echo "build.sh: no keys" >&2', "exit 1"]);
    expect(failure?.message).toContain(`build.sh: no keys\nThe whole log: ${kept}.log`);
    await expect(stat(`${kept}.mkosi.log`)).rejects.toThrow(/ENOENT/);
  });
});
