/** Commands and copies on OpenSSH's own server. */
import { createHash, randomBytes } from "node:crypto";
import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import path from "node:path";
import { utils } from "ssh2";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { unknown, type Properties } from "../provider/protocol/resource.js";
import { signatureKey } from "../provider/protocol/marshal.js";
import { TestClient } from "../provider/protocol/testing.js";
import { plugin } from "./plugin.js";
import { SshServer } from "./testing/ssh-server.js";

const minutes = 60_000;
const folder = mkdtempSync(path.join(tmpdir(), "palisade-command-"));
const secrets = [["connection"]];
let client: TestClient;
let server: SshServer;

beforeAll(async () => {
  [client, server] = await Promise.all([TestClient.start(plugin), SshServer.start()]);
}, 10 * minutes);
afterAll(async () => {
  await client.stop();
  await server.stop();
  rmSync(folder, { recursive: true });
});

const type = "command:remote:Command";

async function created(inputs: Properties): Promise<Properties> {
  const checked = await client.check(type, { connection: server.connection(), ...inputs }, { secrets });
  expect(checked.failures).toEqual([]);
  return (await client.create(type, checked.inputs.properties, { secrets })).outputs.properties;
}

describe("remote.Command", () => {
  it("runs `create` with input and environment, and returns what it said", async () => {
    const outputs = await created({
      create: 'cat; echo "$WORD of $(whoami)"; echo oh >&2',
      stdin: "in\n",
      environment: { WORD: "word" },
    });
    expect(outputs).toMatchObject({ stdout: "in\nword of root", stderr: "oh" });
  });

  it("hands over variables that the server does not accept, in no argument", async () => {
    const strict = await SshServer.start("LANG");
    try {
      const environment = { KEY: "canary $word\n'with' lines\n", LANG: "C.UTF-8" };
      const create = 'echo "$KEY|$LANG"; cat; cat /proc/[0-9]*/cmdline | tr "\\0" " "';
      const outputs = await created({ connection: strict.connection(), create, environment, stdin: "in\n" });
      const [shown, processes] = String(outputs["stdout"]).split("|C.UTF-8\nin\n");
      expect(shown).toBe(environment.KEY);
      expect(processes).toContain("sshd");
      expect(processes).not.toContain("canary $word");
    } finally {
      await strict.stop();
    }
  }, 60_000);

  it("does not wait for what it left in the background", async () => {
    const started = Date.now();
    expect((await created({ create: "sleep 300 & echo started" }))["stdout"]).toBe("started");
    expect(Date.now() - started).toBeLessThan(60_000);
  });

  it("has secret output when an input beside the connection is", async () => {
    const inputs = { connection: server.connection(), create: "cat", stdin: "x" };
    const plain = await client.create(type, inputs, { secrets });
    expect(plain.outputs.secrets.has(["stdout"])).toBe(false);
    const secret = await client.create(type, inputs, { secrets: [...secrets, ["stdin"]] });
    expect(secret.outputs.secrets.has(["stdout"])).toBe(true);
  });

  it("fills in the published defaults", async () => {
    const { inputs } = await client.check(type, { connection: { host: "192.0.2.1", proxy: { host: "192.0.2.2" } } });
    const defaults = { user: "root", port: 22, dialErrorLimit: 10, perDialTimeout: 15 };
    expect(inputs.properties["connection"]).toEqual({
      host: "192.0.2.1",
      ...defaults,
      proxy: { host: "192.0.2.2", ...defaults },
    });
  });

  it("keeps the connection secret in its outputs", async () => {
    const { outputs } = await client.create(type, { connection: server.connection(), create: "true" });
    expect(outputs.secrets.has(["connection"])).toBe(true);
  });

  it("does not connect in preview", async () => {
    const connection = { ...server.connection(), port: 1 };
    const { outputs } = await client.create(type, { connection, create: "true" }, { preview: true });
    expect(outputs.properties["stdout"]).toBe(unknown);
  });

  it("runs `update` with the last output, and `delete`", async () => {
    const life = { connection: server.connection(), create: "echo 1", update: "echo $PULUMI_COMMAND_STDOUT 2" };
    const inputs = { ...life, delete: "echo $PULUMI_COMMAND_STDOUT >/tmp/deleted" };
    const outputs = await created(inputs);
    const updated = await client.update(type, "id", { inputs, outputs }, { ...inputs, stdin: "x" });
    expect(updated.properties["stdout"]).toBe("1 2");
    await client.delete(type, "id", { inputs, outputs: updated.properties });
    expect((await created({ create: "cat /tmp/deleted" }))["stdout"]).toBe("1 2");
  });

  it("fails with exit code, address and the last words; credentials are not among them", async () => {
    const connection = server.connection({ password: server.password });
    const create = `echo ${server.password}; exit 7`;
    const failed = client.create(type, { connection, create }, { secrets });
    await expect(failed).rejects.toThrow("exit status 7 on 127.0.0.1");
    await expect(failed).rejects.toThrow("its last lines:\n[secret]");
  });

  it("logs in by password, and by an encrypted key", async () => {
    const { privateKey: _key, ...rest } = server.connection();
    const password = { ...rest, password: server.password };
    expect((await created({ connection: password, create: "echo in" }))["stdout"]).toBe("in");

    const pair = utils.generateKeyPairSync("ed25519", { passphrase: "pass phrase", cipher: "aes256-ctr", rounds: 4 });
    await created({ create: "cat >>/run/test/authorized_keys", stdin: `${pair.public}\n` });
    const encrypted = { ...rest, privateKey: pair.private, privateKeyPassword: "pass phrase" };
    expect((await created({ connection: encrypted, create: "echo in" }))["stdout"]).toBe("in");
  });

  it("goes through a proxy", async () => {
    const proxy = server.connection();
    const connection = { ...server.connection(), proxy };
    expect((await created({ connection, create: "echo in" }))["stdout"]).toBe("in");
    const elsewhere = { ...connection, proxy: { ...proxy, port: 1 } };
    await expect(client.create(type, { connection: elsewhere, create: "true" }, { secrets })).rejects.toThrow(
      "connection.proxy: no SSH connection to root@127.0.0.1:1 after 1 attempts",
    );
  });

  it("refuses another host key; the same machine is taken when the key is its own or none is expected", async () => {
    const other = utils.generateKeyPairSync("ed25519").public;
    const refused = client.create(type, { connection: server.connection({ hostKey: other }), create: "true" });
    await expect(refused).rejects.toThrow("with the host key that is expected");
    const { hostKey: _own, ...unchecked } = server.connection();
    expect((await created({ connection: unchecked, create: "echo in" }))["stdout"]).toBe("in");
  });

  it("gives up after as many failed dials as are allowed", async () => {
    let dials = 0;
    const closing = await listen((socket) => {
      dials++;
      socket.destroy();
    });
    const { port } = closing.address() as { port: number };
    const connection = server.connection({ port, dialErrorLimit: 2 });
    await expect(client.create(type, { connection, create: "true" }, { secrets })).rejects.toThrow("after 3 attempts");
    expect(dials).toBe(3);
    closing.close();
  });

  it("waits no longer for a dial than allowed", async () => {
    const silent = await listen(() => undefined);
    const { port } = silent.address() as { port: number };
    const connection = server.connection({ port, perDialTimeout: 1 });
    const started = Date.now();
    await expect(client.create(type, { connection, create: "true" }, { secrets })).rejects.toThrow("Timed out");
    expect(Date.now() - started).toBeLessThan(10_000);
    silent.close();
  });

  it("ends with the run when that is cancelled", async () => {
    const failed = client.create(type, { connection: server.connection(), create: "echo up; sleep 300" }, { secrets });
    failed.catch(() => undefined);
    await expect
      .poll(() => client.engine.lines.some(({ message }) => message === "up"), { timeout: 10_000 })
      .toBe(true);
    client.provider.cancel();
    await expect(failed).rejects.toThrow("cancelled");
  });

  it("has its credentials in no argument and no environment", async () => {
    const running = client.create(
      type,
      { connection: server.connection({ password: server.password }), create: "sleep 2" },
      { secrets },
    );
    await new Promise((resolve) => setTimeout(resolve, 1000));
    const seen = readdirSync("/proc")
      .filter((name) => /^\d+$/.test(name))
      .flatMap((pid) => ["cmdline", "environ"].map((file) => readIfThere(`/proc/${pid}/${file}`)))
      .join("\n");
    await running;
    expect(seen).toContain("sshd");
    expect(seen).not.toContain(server.password);
    expect(seen).not.toContain(server.privateKey.split("\n")[2]);
  });
});

describe("remote.CopyToRemote", () => {
  const copy = "command:remote:CopyToRemote";
  const asset = (file: string, hash = "1") => ({
    [signatureKey]: "c44067f5952c0a294b673a41bacd8c17",
    path: file,
    hash,
  });
  const archive = (file: string) => ({ [signatureKey]: "0def7320c3a5731c473e5ecbe6d01bc7", path: file, hash: "1" });
  const inputs = (source: Properties, remotePath: string) => ({ connection: server.connection(), source, remotePath });
  const sha256 = async (file: string) =>
    String((await created({ create: `sha256sum ${file}` }))["stdout"]).split(" ")[0];

  it("copies a file, over one that is there, and into a folder", async () => {
    const file = path.join(folder, "image");
    const content = randomBytes(3 * 1024 * 1024 + 17);
    writeFileSync(file, content);
    const expected = createHash("sha256").update(content).digest("hex");
    await created({ create: "echo longer than nothing >/tmp/target; mkdir /tmp/into" });
    await client.create(copy, inputs(asset(file), "/tmp/target"), { secrets });
    await client.create(copy, inputs(asset(file), "/tmp/into"), { secrets });
    expect(await sha256("/tmp/target")).toBe(expected);
    expect(await sha256("/tmp/into/image")).toBe(expected);
    expect(client.engine.lines.some(({ message }) => message.startsWith("copying image: 100 %"))).toBe(true);
  });

  it("copies a folder, or what is in it", async () => {
    mkdirSync(path.join(folder, "tree/sub"), { recursive: true });
    writeFileSync(path.join(folder, "tree/sub/file"), "x");
    await client.create(copy, inputs(archive(path.join(folder, "tree")), "/tmp/one"), { secrets });
    await client.create(copy, inputs(archive(path.join(folder, "tree/")), "/tmp/two"), { secrets });
    const found = await created({ create: "cd /tmp && find one two -type f | sort" });
    expect(found["stdout"]).toBe("one/tree/sub/file\ntwo/sub/file");
  });

  it("copies a text", async () => {
    const text = { [signatureKey]: "c44067f5952c0a294b673a41bacd8c17", text: "hello", hash: "2" };
    await client.create(copy, inputs(text, "/tmp/text"), { secrets });
    expect((await created({ create: "cat /tmp/text" }))["stdout"]).toBe("hello");
  });

  it("copies again only when the content or its place changed", async () => {
    const file = path.join(folder, "again");
    writeFileSync(file, "first");
    const before = inputs(asset(file, "a"), "/tmp/again");
    await client.create(copy, before, { secrets });
    const olds = { inputs: before, outputs: before };
    await created({ create: "rm /tmp/again" });
    await client.update(copy, "id", olds, { ...before, connection: server.connection({ perDialTimeout: 9 }) });
    expect((await created({ create: "ls /tmp/again || true" }))["stdout"]).toBe("");
    await client.update(copy, "id", olds, inputs(asset(file, "b"), "/tmp/again"));
    expect((await created({ create: "cat /tmp/again" }))["stdout"]).toBe("first");
  });

  it("is replaced by a trigger", async () => {
    const before = inputs(asset("x"), "/tmp/x");
    const olds = { inputs: { ...before, triggers: ["a"] }, outputs: before };
    const diff = await client.diff(copy, "id", olds, { ...before, triggers: ["b"] });
    expect(diff.getReplacesList()).toEqual(["triggers"]);
  });

  it("refuses what has no path, and says where the target is wrong", async () => {
    const parts = { [signatureKey]: "0def7320c3a5731c473e5ecbe6d01bc7", assets: {}, hash: "1" };
    expect((await client.check(copy, inputs(parts, "/tmp/x"))).failures).toEqual([
      { property: "source", reason: expect.stringContaining("must be a FileAsset, a StringAsset or a FileArchive") },
    ]);
    const file = path.join(folder, "again");
    await expect(client.create(copy, inputs(asset(file), "/no/such/place"), { secrets })).rejects.toThrow(
      `${file} cannot be copied to /no/such/place`,
    );
  });
});

it("remote.CopyFile copies a file", async () => {
  const file = path.join(folder, "old-style");
  writeFileSync(file, "old");
  const inputs = { connection: server.connection(), localPath: file, remotePath: "/tmp/old-style" };
  await client.create("command:remote:CopyFile", inputs, { secrets });
  expect((await created({ create: "cat /tmp/old-style" }))["stdout"]).toBe("old");
  const diff = await client.diff(
    "command:remote:CopyFile",
    "id",
    { inputs, outputs: inputs },
    { ...inputs, localPath: "x" },
  );
  expect(diff.getReplacesList()).toEqual(["localPath"]);
});

async function listen(each: (socket: import("node:net").Socket) => void): Promise<Server> {
  const made = createServer((socket) => each(socket.on("error", () => undefined))).listen(0, "127.0.0.1");
  await new Promise((resolve) => made.once("listening", resolve));
  return made;
}

function readIfThere(file: string): string {
  try {
    return readFileSync(file, "utf8");
  } catch {
    return "";
  }
}
