/** For tests of patching: a real registry, images of outdated Debian packages, databases, and cosign. */
import { existsSync } from "node:fs";
import { mkdir, mkdtemp, rm, writeFile } from "node:fs/promises";
import { createPublicKey } from "node:crypto";
import { tmpdir } from "node:os";
import path from "node:path";
import { DebianImageBuilder } from "../../../provider/local/image-builder/debian-image-builder.js";
import { run } from "../../../provider/system/command.js";
import { withLock } from "../../../provider/system/lock.js";
import { testOperation, type RecordedOperation } from "../../../provider/system/testing.js";
import { defaultCacheDirectory } from "../../../shared/directories.js";
import type { Advisory } from "../../../provider/local/patching/changelog.js";
import { findDatabase, type DatabaseDescription } from "../../../provider/local/patching/database.js";
import { buildDatabase, writeDatabase } from "../../../provider/local/patching/database-builder.js";
import { LocalPatcher } from "../../../provider/local/patching/local-patcher.js";
import { fixable, scanImage } from "../../../provider/local/patching/scan.js";
import { SuiteApt } from "../../../provider/local/patching/suite-apt.js";
import { writeToolAccess } from "../../../provider/local/patching/tool-access.js";
import { readManifest } from "../../../provider/local/patching/transfer.js";
import { LocalRegistries } from "../../../provider/local/registry/local-registries.js";
import { Repository } from "../../../provider/local/registry/repository.js";
import { LocalSealer } from "../../../provider/local/sealing/local-sealer.js";
import { makeKey } from "../../../provider/local/sealing/testing/bench.js";
import { readCertificate } from "../../../provider/local/sealing/signer.js";
import type { PatchSpec, RegistryAccess, SigningKey } from "../../../provider/backends/index.js";

const suite = "trixie";
const minutes = 60_000;

export class PatchBench {
  readonly cache = defaultCacheDirectory();
  readonly registries: LocalRegistries;
  readonly patcher: LocalPatcher;
  readonly state: string;
  access!: RegistryAccess;
  signer!: SigningKey;
  otherSigner!: SigningKey;
  /** Of real data. */
  database!: DatabaseDescription;
  private registryId = "";

  private constructor(readonly folder: string) {
    this.state = path.join(folder, "state");
    this.registries = new LocalRegistries(this.state);
    this.patcher = new LocalPatcher(this.state, this.cache, this.registries);
  }

  static async start(): Promise<PatchBench> {
    const bench = new PatchBench(await mkdtemp(path.join(tmpdir(), "palisade-patch-test-")));
    const registry = await bench.registries.createRegistry(testOperation("registry"), { port: 0 });
    bench.registryId = registry.id;
    const { server, username, password, ca } = registry;
    bench.access = { server, username, password, ca };
    const keys = path.join(bench.folder, "keys");
    await mkdir(keys, { mode: 0o700 });
    bench.signer = await makeKey(keys, "signer", "ec");
    bench.otherSigner = await makeKey(keys, "other", "ec");
    bench.database = await buildDatabase(
      { suite, packages: ["nginx"] },
      bench.directory("real"),
      bench.cache,
      () => undefined,
    );
    return bench;
  }

  async stop(): Promise<void> {
    await this.registries.deleteRegistry(testOperation("registry"), this.registryId);
    await rm(this.folder, { recursive: true, force: true });
  }

  directory(database: string): string {
    return path.join(this.folder, "databases", database);
  }

  /** A database that covers the same packages and knows these advisories only. */
  async databaseOf(name: string, advisories: Advisory[]): Promise<string> {
    const { release, packages, covers } = this.database;
    await writeDatabase(this.directory(name), { suite, release, packages, covers, advisories });
    return this.directory(name);
  }

  /** The newest versions of packages in the suite. */
  async newest(names: string[]): Promise<string[]> {
    const packages = await new SuiteApt(path.join(this.cache, "apt", suite), suite).packages(names);
    return names.map((wanted) => packages.find(({ name }) => name === wanted)!.version);
  }

  /** nginx of the suite's last point release, with the package sources of its updates. */
  async outdatedImage(repository: string, files: Record<string, string> = {}): Promise<string> {
    const builder = new DebianImageBuilder(this.cache, (server) => this.registries.findRegistry(server));
    const made = await builder.buildDebianImage(testOperation("image", { milliseconds: 10 * minutes }), {
      ...{ registry: this.access, repository, tag: "latest", suite, packages: ["nginx"] },
      ...{ securityUpdates: false, packageSources: true, workingDirectory: "/" },
      ...{ entrypoint: ["/usr/sbin/nginx"], command: ["-g", "daemon off;"], environment: { A: "1" }, files },
    });
    return made.digest;
  }

  operation(name: string): RecordedOperation {
    return testOperation(name, { milliseconds: 12 * minutes });
  }

  spec(repository: string, digest: string, more: Partial<PatchSpec> = {}): PatchSpec {
    return {
      ...{ registry: this.access, repository, digest, tag: "patched", database: this.directory("real") },
      ...{ imageSigner: this.signer, ...more },
    };
  }

  repository(name: string): Repository {
    return new Repository(this.access, name);
  }

  /** What a tag leads to; undefined when there is none. */
  async tag(repository: string, tag: string): Promise<string | undefined> {
    return this.with(repository, async (one) => (await one.manifest(tag))?.digest);
  }

  async image(repository: string, digest: string) {
    return this.with(repository, async (one) => {
      const { manifest } = await readManifest(one, digest);
      const configuration = JSON.parse((await one.blob(manifest.config.digest)).toString()) as {
        config: Record<string, unknown>;
      };
      return { manifest, configuration };
    });
  }

  /** Asks Trivy once more, of the registry itself and by digest. */
  async fixableIn(repository: string, digest: string, database = this.directory("real")): Promise<number> {
    const folder = await mkdtemp(path.join(this.folder, "rescan-"));
    const access = await writeToolAccess(folder, this.access);
    const reference = `${this.access.server}/${repository}@${digest}`;
    const signal = AbortSignal.timeout(5 * minutes);
    const scan = await scanImage(reference, await findDatabase(database), access, path.join(folder, "r.json"), signal);
    return fixable(scan).length;
  }

  async seal(repository: string, digest: string) {
    const sealer = new LocalSealer(this.cache, (server) => this.registries.findRegistry(server));
    const keys = path.join(this.folder, "keys");
    if (!existsSync(path.join(keys, "layer.key"))) await makeKey(keys, "layer", "rsa");
    const layerSigner = { certificateFile: path.join(keys, "layer.crt"), keyFile: path.join(keys, "layer.key") };
    const signers = { layerSigner, sealSigner: this.otherSigner, imageSigner: this.signer };
    return sealer.seal(this.operation("seal"), { registry: this.access, repository, digest, ...signers });
  }

  /** Runs Debian's cosign, which knows nothing of our code, with the public key of a signer. */
  async cosign(command: string[], signer: SigningKey, reference: string): Promise<string> {
    const program = await this.cosignProgram();
    const folder = await mkdtemp(path.join(this.folder, "cosign-"));
    const access = await writeToolAccess(folder, this.access);
    const { publicKey } = await readCertificate("imageSigner", signer);
    const key = path.join(folder, "key.pub");
    await writeFile(
      key,
      createPublicKey(publicKey.export({ type: "spki", format: "pem" })).export({ type: "spki", format: "pem" }),
    );
    return run(program, [...command, "--key", key, "--insecure-ignore-tlog=true", reference], {
      environment: { ...access.environment, HOME: folder },
    });
  }

  /** Fetched from the suite once for this machine. */
  private async cosignProgram(): Promise<string> {
    const kept = path.join(this.cache, "apt", `cosign-${suite}`);
    const state = path.join(this.cache, "apt", suite);
    return withLock(`${state}.lock`, undefined, async () => {
      const program = path.join(kept, "usr/bin/cosign");
      if (existsSync(program)) return program;
      const work = await mkdtemp(path.join(state, "cosign-"));
      const apt = new SuiteApt(state, suite);
      await apt.update();
      await apt.download(["cosign"], work);
      await run("sh", ["-c", `dpkg-deb --extract cosign_*.deb "${kept}"`], { directory: work });
      await rm(work, { recursive: true });
      return program;
    });
  }

  private async with<T>(name: string, work: (repository: Repository) => Promise<T>): Promise<T> {
    const repository = this.repository(name);
    try {
      return await work(repository);
    } finally {
      repository.close();
    }
  }
}
