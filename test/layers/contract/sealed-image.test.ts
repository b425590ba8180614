/**
 * What the sealer publishes, the agent's role `images` takes: one image, from a real registry, on both sides the real
 * thing.
 */
import { spawn, type ChildProcess } from "node:child_process";
import { X509Certificate } from "node:crypto";
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, readFile, rm, stat, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import path from "node:path";
import { createClient, type Client } from "@connectrpc/connect";
import { createConnectTransport } from "@connectrpc/connect-node";
import { afterAll, beforeAll, describe, expect, it } from "vitest";
import { hexOf } from "../../../provider/local/registry/digest.js";
import { Bench, layerOf, makeKey, noise, putImage, tarOf } from "../../../provider/local/sealing/testing/bench.js";
import { run } from "../../../provider/system/command.js";
import {
  ImagePolicyService,
  ImageStoreService,
  type SealedImage,
} from "../../../hosts/api/gen/palisade/agent/v1/images_pb.js";

/** The role as a process, with folders of its own. */
class ImagesRole {
  private constructor(
    readonly folder: string,
    private readonly process: ChildProcess,
    private readonly store: Client<typeof ImageStoreService>,
    readonly policies: Client<typeof ImagePolicyService>,
  ) {}

  static async start(agent: string, folder: string, sealCertificate: string): Promise<ImagesRole> {
    await mkdir(path.join(folder, "trust/seals"), { recursive: true });
    await writeFile(path.join(folder, "trust/seals/seal.pem"), await readFile(sealCertificate));
    const socketPath = path.join(folder, "s");
    const process = spawn(
      agent,
      [
        ...["images", "-socket", socketPath, "-socket-group", "", "-data", path.join(folder, "data")],
        ...["-store", path.join(folder, "layers"), "-trust", path.join(folder, "trust")],
      ],
      { stdio: "ignore" },
    );
    for (let waited = 0; !existsSync(socketPath); waited += 20) {
      if (process.exitCode !== null || waited > 20_000) throw new Error("the role images does not serve");
      await new Promise((resolve) => setTimeout(resolve, 20));
    }
    const transport = createConnectTransport({
      httpVersion: "1.1",
      baseUrl: "http://role",
      nodeOptions: { socketPath },
    });
    return new ImagesRole(
      folder,
      process,
      createClient(ImageStoreService, transport),
      createClient(ImagePolicyService, transport),
    );
  }

  async ensure(bench: Bench, reference: string): Promise<SealedImage> {
    const { server, username = "", password = "", ca = "" } = bench.access;
    const request = { reference, imageRegistries: [{ server, username, password, ca }] };
    let image: SealedImage | undefined;
    for await (const { content } of this.store.ensureImage(request)) {
      if (content.case === "image") image = content.value;
    }
    return image!;
  }

  async stop(): Promise<void> {
    const ended = new Promise((resolve) => this.process.once("exit", resolve));
    this.process.kill();
    await ended;
  }
}

describe("a sealed image", () => {
  let folder: string;
  let agent: string;
  let bench: Bench;
  let sealed: Awaited<ReturnType<Bench["seal"]>>;
  const roles: ImagesRole[] = [];
  const start = async (name: string, certificate: string): Promise<ImagesRole> => {
    const role = await ImagesRole.start(agent, path.join(folder, name), certificate);
    roles.push(role);
    return role;
  };

  beforeAll(async () => {
    folder = await mkdtemp(path.join(tmpdir(), "palisade-images-"));
    agent = path.join(folder, "palisade-agent");
    await run("go", ["build", "-o", agent, "./hosts/agent"]);
    bench = await Bench.start(folder);
    const layers = [
      await layerOf(await tarOf({ "usr/": "", "usr/big": noise("big", 3_000_000) })),
      await layerOf(await tarOf({ "app/": "", "app/hello": "hello\n" }), "zstd"),
    ];
    const repository = bench.repository("team/app");
    try {
      const digest = await putImage(repository, layers);
      sealed = await bench.seal(await bench.machine("sealer"), "team/app", digest);
    } finally {
      repository.close();
    }
  });
  afterAll(async () => {
    for (const role of roles) await role.stop();
    await bench?.stop();
    await rm(folder, { recursive: true, force: true });
  });

  it("comes into the store of a host that trusts the key of its seal", async () => {
    const role = await start("host", bench.keys.sealSigner.certificateFile);
    const image = await role.ensure(bench, sealed.reference);
    expect(image).toMatchObject({
      manifestDigest: sealed.digest,
      rootHashes: sealed.rootHashes,
      sealKeyId: sealed.sealKeyId,
    });
    expect(image.fetchedBytes).toBe(image.totalBytes);
    expect(existsSync(path.join(role.folder, "layers/seals", `${hexOf(sealed.digest)}.json`))).toBe(true);
    for (const rootHash of sealed.rootHashes) {
      expect((await stat(path.join(role.folder, "layers/blobs", `${rootHash}.erofs`))).nlink).toBe(2);
      expect((await stat(path.join(role.folder, "layers/blobs", `${rootHash}.p7s`))).size).toBeGreaterThan(100);
    }
    expect((await role.ensure(bench, sealed.reference)).fetchedBytes).toBe(0n);
  });

  it("is refused by a host that trusts another key", async () => {
    const other = await makeKey(folder, "other", "ec");
    const role = await start("stranger", other.certificateFile);
    await expect(role.ensure(bench, sealed.reference)).rejects.toThrow(/SealByUnknownKey/);
  });

  it("is judged by its cosign signature where a policy names keys", async () => {
    const publicKey = async (certificateFile: string) =>
      new X509Certificate(await readFile(certificateFile)).publicKey.export({ type: "spki", format: "pem" }).toString();
    const role = await start("choosy", bench.keys.sealSigner.certificateFile);
    const repositories = [`${bench.access.server}/team/*`];
    const other = await makeKey(folder, "foreign", "ec");
    const wrong = { name: "signed", repositories, keys: [await publicKey(other.certificateFile)] };
    await role.policies.applyImagePolicy({ policy: wrong });
    await expect(role.ensure(bench, sealed.reference)).rejects.toThrow(/SignatureByUnknownKey/);
    const right = { ...wrong, keys: [await publicKey(bench.keys.imageSigner.certificateFile)] };
    const applied = await role.policies.applyImagePolicy({ policy: right });
    expect(applied.policy?.generation).toBe(2n);
    expect((await role.ensure(bench, sealed.reference)).manifestDigest).toBe(sealed.digest);
  });
});
