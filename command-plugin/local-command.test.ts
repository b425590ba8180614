import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { tmpdir } from "node:os";
import path from "node:path";
import * as rpc from "@pulumi/pulumi/proto/provider_pb.js";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { unknown, type Properties } from "../provider/protocol/resource.js";
import { decode, encode, signatureKey } from "../provider/protocol/marshal.js";
import { TestClient } from "../provider/protocol/testing.js";
import { identifyProcess, isAlive } from "../shared/process-identity.js";
import { plugin } from "./plugin.js";

const type = "command:local:Command";
const folder = mkdtempSync(path.join(tmpdir(), "palisade-command-"));
let client: TestClient;

beforeAll(async () => {
  client = await TestClient.start(plugin);
});
afterAll(async () => {
  await client.stop();
  rmSync(folder, { recursive: true });
});

/** Checked inputs and outputs of a created command. */
async function created(inputs: Properties): Promise<{ inputs: Properties; outputs: Properties }> {
  const checked = await client.check(type, inputs);
  expect(checked.failures).toEqual([]);
  const { outputs } = await client.create(type, checked.inputs.properties);
  return { inputs: checked.inputs.properties, outputs: outputs.properties };
}

describe("local.Command", () => {
  it("runs `create` and returns what it said", async () => {
    const { outputs } = await created({
      create: 'cat; echo "$WORD" in "$(pwd)"; echo oh >&2',
      stdin: "from stdin\n",
      environment: { WORD: "word" },
      dir: folder,
    });
    expect(outputs).toMatchObject({ stdout: `from stdin\nword in ${folder}`, stderr: "oh" });
  });

  it("does not run in preview", async () => {
    const file = path.join(folder, "never");
    const { outputs } = await client.create(type, { create: `touch ${file}` }, { preview: true });
    expect(outputs.properties["stdout"]).toBe(unknown);
    expect(() => readFileSync(file)).toThrow("ENOENT");
  });

  it("runs `update`, else `create`, with the last output, and `delete` at the end", async () => {
    const file = path.join(folder, "life");
    const life = { create: "echo made", update: 'echo "changed $PULUMI_COMMAND_STDOUT"', delete: `printenv >${file}` };
    const before = await created(life);
    const inputs = { ...before.inputs, stdin: "x" };
    const outputs = (await client.update(type, "id", before, inputs)).properties;
    expect(outputs["stdout"]).toBe("changed made");
    await client.delete(type, "id", { inputs, outputs });
    expect(readFileSync(file, "utf8")).toContain("PULUMI_COMMAND_STDOUT=changed made\n");

    const plain = await created({ create: 'echo "again:$PULUMI_COMMAND_STDOUT"', addPreviousOutputInEnv: false });
    const again = await client.update(type, "id", plain, { ...plain.inputs, stdin: "x" });
    expect(again.properties["stdout"]).toBe("again:");
  });

  it("is replaced by a trigger, creating first, and updated by anything else", async () => {
    const before = await created({ create: "true", triggers: ["a", 1] });
    const replaced = await client.diff(type, "id", before, { ...before.inputs, triggers: ["a", 2] });
    expect(replaced.getReplacesList()).toEqual(["triggers"]);
    expect(replaced.getDeletebeforereplace()).toBe(false);
    const updated = await client.diff(type, "id", before, { ...before.inputs, create: "false" });
    expect(updated.getReplacesList()).toEqual([]);
    expect(updated.getDiffsList()).toEqual(["create"]);
  });

  it("fails with the exit code and the last words, and not with the secret among them", async () => {
    const create = "echo the key is $KEY; exit 3";
    const inputs = { create, environment: { KEY: "tr0ub4dor-3-and-more" } };
    const failed = client.create(type, inputs, { secrets: [["environment", "KEY"]] });
    await expect(failed).rejects.toThrow("exit status 3 of the command `echo the key is $KEY; exit 3`");
    await expect(failed).rejects.toThrow("the key is [secret]");
  });

  it.each([
    ["stdout", ["one"]],
    ["stderr", ["two"]],
    ["none", []],
    ["stdoutAndStderr", ["one", "two"]],
  ])("logs %s", async (logging, expected) => {
    client.engine.lines.length = 0;
    await created({ create: "echo one; sleep 0.1; echo two >&2", logging });
    expect(client.engine.lines.map((line) => line.message)).toEqual(expected);
  });

  const large = "x".repeat(200_000);
  it.each([
    ["large", "head -c 200000 /dev/zero | tr '\\0' x", large, "is 200022 bytes long"],
    ["with a NUL", "printf 'a\\0b'", "a\0b", "holds a NUL character"],
  ])("leaves out output that no variable holds, and says so: %s", async (_name, create, stdout, reason) => {
    const file = path.join(folder, "left-out");
    const life = {
      create,
      update: 'echo "${PULUMI_COMMAND_STDOUT-unset}"',
      delete: `echo gone >${file}`,
      logging: "none",
    };
    const before = await created(life);
    expect(before.outputs["stdout"]).toBe(stdout);
    client.engine.lines.length = 0;
    const updated = await client.update(type, "id", before, { ...before.inputs, stdin: "x" });
    expect(updated.properties["stdout"]).toBe("unset");
    expect(client.engine.lines.map(({ message }) => message)).toEqual([
      expect.stringMatching(`^PULUMI_COMMAND_STDOUT is not set: .*${reason}`),
    ]);
    await client.delete(type, "id", before);
    expect(readFileSync(file, "utf8")).toBe("gone\n");
  });

  it("leaves out output that does not fit beside the rest of the environment", async () => {
    const output = "x".repeat(120_000);
    const environment = Object.fromEntries(
      Array.from({ length: 17 }, (_, index) => [`V${index}`, "y".repeat(120_000)]),
    );
    const inputs = { create: 'echo "${PULUMI_COMMAND_STDOUT-unset}"', environment, logging: "none" };
    const olds = { inputs, outputs: { ...inputs, stdout: output, stderr: output } };
    expect((await client.update(type, "id", olds, inputs)).properties["stdout"]).toBe("unset");
    const tooMuch = { ...inputs, environment: { ...environment, W: "y".repeat(120_000), X: "y".repeat(120_000) } };
    await expect(client.create(type, tooMuch)).rejects.toThrow("is larger than the system takes (E2BIG)");
  });

  it.each<[string, Properties, string, string]>([
    ["a NUL in a variable", { environment: { A: "canary\0word" } }, 'environment["A"]', "holds a NUL"],
    ["a variable that is too long", { environment: { A: `canary${large}` } }, 'environment["A"]', "bytes long"],
    ["a name with =", { environment: { "A=B": "canary" } }, 'environment["A=B"]', "a variable's name"],
    ["a name of no characters", { environment: { "": "canary" } }, 'environment[""]', "a variable's name"],
    ["a NUL in the command", { create: "canary\0" }, "create", "holds a NUL"],
    ["a command that is too long", { delete: large }, "delete", "bytes long"],
    ["a NUL in the folder", { dir: "/canary\0" }, "dir", "holds a NUL"],
    ["no interpreter", { interpreter: [] }, "interpreter", "is empty"],
    ["a glob that cannot be read", { archivePaths: ["!**", "a{b"] }, "archivePaths[1]", "a { has no }"],
  ])("refuses before it runs: %s", async (_name, inputs, property, reason) => {
    const { failures } = await client.check(type, { create: "true", ...inputs });
    expect(failures).toEqual([{ property, reason: expect.stringContaining(reason) }]);
    expect(failures[0]!.reason).not.toContain("canary");
    // State of an earlier version may hold it all the same.
    if ("archivePaths" in inputs || "delete" in inputs) return;
    const failed = client.create(type, { create: "true", ...inputs });
    await expect(failed).rejects.toThrow(property);
    await expect(failed).rejects.not.toThrow("canary");
  });

  it.each<[string, Properties, (string | number)[][], boolean]>([
    ["no secret", { environment: { A: "x" } }, [], false],
    ["a secret variable", { environment: { A: "x" } }, [["environment", "A"]], true],
    ["a secret environment", { environment: { A: "x" } }, [["environment"]], true],
    ["secret input", { stdin: "x" }, [["stdin"]], true],
    ["a secret command", {}, [["create"]], true],
    ["a secret trigger", { triggers: ["x", 1] }, [["triggers", 1]], true],
  ])("has secret output when an input is: %s", async (_name, inputs, secrets, expected) => {
    const given = { create: "echo out; echo err >&2", logging: "none", ...inputs };
    for (const preview of [true, false]) {
      const { outputs } = await client.create(type, given, { secrets, preview });
      expect([outputs.secrets.has(["stdout"]), outputs.secrets.has(["stderr"])]).toEqual([expected, expected]);
    }
  });

  it("does not wait for what it left in the background, and lets that run on", async () => {
    const file = path.join(folder, "background");
    const started = Date.now();
    const create = `(sleep 3; echo late; echo alive >${file}) & echo started`;
    const { outputs } = await created({ create });
    expect(outputs["stdout"]).toBe("started");
    expect(Date.now() - started).toBeLessThan(2_900);
    expect(client.engine.lines.at(-1)?.message).toContain("what it started in the background still holds its output");
    await expect.poll(() => readFileSync(file, { encoding: "utf8", flag: "a+" }), { timeout: 10_000 }).toBe("alive\n");
  });

  it("waits for the last words of what ends with it", async () => {
    const { outputs } = await created({ create: "(sleep 0.3; echo late) & echo started", logging: "none" });
    expect(outputs["stdout"]).toBe("started\nlate");
  });

  it("cuts its own text in errors at a character", async () => {
    const failed = client.create(type, { create: `exit 3 #${"a".repeat(111)}😀😀😀` });
    await expect(failed).rejects.toThrow(/#a{111}…`/);
  });

  it("returns files as assets and as an archive", async () => {
    const dir = path.join(folder, "files");
    mkdirSync(path.join(dir, "sub"), { recursive: true });
    writeFileSync(path.join(dir, "secret.js"), "");
    const { outputs } = await created({
      create: "echo 1 >a.txt; echo 2 >sub/b.txt",
      dir,
      assetPaths: ["*.txt"],
      archivePaths: ["**", "!**secret.*"],
    });
    expect(outputs["assets"]).toEqual({
      "a.txt": {
        [signatureKey]: "c44067f5952c0a294b673a41bacd8c17",
        path: path.join(dir, "a.txt"),
        hash: "4355a46b19d348dc2f57c046f8ef63d4538ebb936000f3c9ee954a27460dd865",
      },
    });
    expect(Object.keys((outputs["archive"] as { assets: object }).assets)).toEqual(["a.txt", "sub/b.txt"]);
  });

  it("ends the command and what it started when the run is cancelled", async () => {
    const file = path.join(folder, "pid");
    const failed = client.create(type, { create: `sleep 300 & echo $! >${file}; wait` });
    failed.catch(() => undefined);
    let pid = "";
    await expect
      .poll(() => (pid = readFileSync(file, { encoding: "utf8", flag: "a+" })), { timeout: 5_000 })
      .toMatch(/\d/);
    client.provider.cancel();
    await expect(failed).rejects.toThrow("cancelled");
    await expect.poll(async () => isAlive(await identifyProcess(Number(pid))), { timeout: 5_000 }).toBe(false);
  });

  it("refuses what is not in the schema, with the path", async () => {
    const { failures } = await client.check(type, { create: "true", logging: "loud" });
    expect(failures).toEqual([
      { property: "logging", reason: '"loud" is not one of stdout, stderr, stdoutAndStderr, none' },
    ]);
    expect((await client.check(type, { enviroment: {} })).failures[0]?.reason).toContain("did you mean `environment`?");
  });
});

it("local.run runs at once and returns arguments and output", async () => {
  const request = new rpc.InvokeRequest();
  request.setTok("command:local:run");
  request.setArgs(encode({ command: "echo $WORD", environment: { WORD: "now" } }));
  const response = await client.call<rpc.InvokeRequest, rpc.InvokeResponse>("invoke", request);
  expect(decode(response.getReturn()).properties).toMatchObject({ command: "echo $WORD", stdout: "now", stderr: "" });
});
