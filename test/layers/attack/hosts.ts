/** The two hosts that attacks run on, and what attacks share. */
import { createHash } from "node:crypto";
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from "node:fs";
import path from "node:path";
import { gzipSync } from "node:zlib";
import { pack } from "tar-stream";
import { create } from "@bufbuild/protobuf";
import { createLocalBackends } from "../../../provider/local/index.js";
import type { RegistryAccess, SealObserved } from "../../../provider/backends/index.js";
import { writeLayout, type Layer } from "../../../provider/local/image-builder/oci-layout.js";
import { push } from "../../../provider/local/image-builder/push.js";
import {
  ContainerPhase,
  ContainerSchema,
  GroupSpecSchema,
  RestartPolicy,
  type Group,
} from "../../../hosts/api/gen/palisade/agent/v1/agent_pb.js";
import { operation } from "../contract/subject.js";
import { cacheDirectory, eventually, type Environment } from "../../support/hosts/environment.js";
import { buildProbe } from "../../support/hosts/probe-image.js";
import type { Probe } from "../../support/hosts/probe.js";

/** A host with the probe in it. */
export interface AttackedHost {
  environment: Environment;
  /** Set when the hosts are up. */
  probe: () => Probe;
}

/** Where a program of the host's own lies that every attack can copy: static, and harmless. */
export const harmless = "/usr/libexec/palisade-probe";

/** Images of the tests, in the registry of a stack. */
export class Images {
  private readonly work: string;

  constructor(private readonly environment: Environment) {
    this.work = mkdtempSync(path.join(environment.root, "images-"));
    buildProbe(path.join(this.work, "probe"));
  }

  /** The probe as a program for images. */
  get probe(): Buffer {
    return readFileSync(path.join(this.work, "probe"));
  }

  async access(): Promise<RegistryAccess> {
    const { server, username, ca } = (await this.environment.resource("Registry")).outputs as Record<string, string>;
    const credentials = path.join(this.environment.folder("registries"), "credentials.json");
    const secret = (JSON.parse(readFileSync(credentials, "utf8")) as { password: string }).password;
    return { server: server!, username: username!, password: secret, ca: ca! };
  }

  /** Pushes an image whose layers hold these files (path → content, all executable); returns its digest. */
  async push(repository: string, layers: Record<string, Buffer>[], entrypoint = ["/probe"]): Promise<string> {
    const folder = mkdtempSync(path.join(this.work, "layout-"));
    try {
      const written: Layer[] = [];
      for (const [index, files] of layers.entries()) {
        written.push(await layerOf(files, path.join(folder, `${index}.tar.gz`)));
      }
      const configuration = { entrypoint, command: [], environment: {}, workingDirectory: "/", labels: {} };
      const digest = await writeLayout(path.join(folder, "layout"), written, configuration, "latest");
      await push(path.join(folder, "layout"), "latest", await this.access(), repository, operation("push").signal);
      return digest;
    } finally {
      rmSync(folder, { recursive: true, force: true });
    }
  }

  /** Seals an image with the operator's keys; `layerKeys`: a folder of other keys that sign the layers. */
  async seal(repository: string, digest: string, layerKeys?: string): Promise<SealObserved> {
    const keys = path.join(this.environment.home, "keys");
    const { environment } = this;
    const backends = createLocalBackends({ stateDirectory: environment.state, cacheDirectory: cacheDirectory() });
    const signer = (name: string, folder = keys) => ({
      certificateFile: path.join(folder, `${name}.crt`),
      keyFile: path.join(folder, `${name}.key`),
    });
    return backends.sealer.seal(operation("seal"), {
      registry: await this.access(),
      repository,
      digest,
      layerSigner: signer("layers/layer", layerKeys),
      sealSigner: signer("layers/seal"),
      imageSigner: signer("images/signer"),
    });
  }

  async reference(repository: string, digest: string): Promise<string> {
    return `${(await this.access()).server}/${repository}@${digest}`;
  }

  /** Pushes and seals. */
  async sealed(repository: string, layers: Record<string, Buffer>[], entrypoint?: string[]): Promise<SealObserved> {
    return this.seal(repository, await this.push(repository, layers, entrypoint));
  }
}

async function layerOf(files: Record<string, Buffer>, file: string): Promise<Layer> {
  const archive = pack();
  const chunks: Buffer[] = [];
  const read = (async () => {
    for await (const chunk of archive) chunks.push(chunk as Buffer);
  })();
  for (const directory of ["tmp", "proc", "sys", "dev"])
    archive.entry({ name: directory, type: "directory", mode: 0o755 });
  for (const [name, content] of Object.entries(files)) {
    archive.entry({ name: name.replace(/^\//, ""), mode: 0o755, mtime: new Date(0) }, content);
  }
  archive.finalize();
  await read;
  const tar = Buffer.concat(chunks);
  const compressed = gzipSync(tar, { level: 1 });
  writeFileSync(file, compressed);
  const digest = (data: Buffer) => `sha256:${createHash("sha256").update(data).digest("hex")}`;
  return { file, diffId: digest(tar), digest: digest(compressed), size: compressed.length };
}

/** What came of a group with one container that runs once. */
export interface Outcome {
  /** Absent: it never started. */
  exitCode?: number;
  output: string;
  /** What the group's events say, one a line: reason: message. */
  events: string;
  rootHashes: string[];
}

/** Groups on a host, by the agent's own interface, as Pulumi's resources use it. */
export class Groups {
  constructor(
    private readonly environment: Environment,
    private readonly images: Images,
  ) {}

  async declare(name: string, image: string, command: string[], options: { restart?: boolean } = {}): Promise<void> {
    const { username, password, ca } = await this.images.access();
    const [server] = image.split("/");
    const endpoint = `https://10.0.2.2:${server!.split(":")[1]}`;
    const spec = create(GroupSpecSchema, {
      name,
      restartPolicy: options.restart ? RestartPolicy.ALWAYS : RestartPolicy.NEVER,
      containers: [create(ContainerSchema, { name: "attacker", image, command })],
      imageRegistries: [{ server: server!, endpoint, username: username!, password: password!, ca: ca! }],
    });
    await this.environment.agent((client) => client.applyGroup(spec));
  }

  async get(name: string): Promise<Group> {
    const group = await this.environment.agent((client) => client.getGroup(name));
    if (!group) throw new Error(`the host has no group ${name}`);
    return group;
  }

  async remove(name: string): Promise<void> {
    await this.environment.agent((client) => client.deleteGroup(name));
  }

  /** Runs a program of an image once and removes the group; waits until it has ended, or its image was refused. */
  async run(name: string, image: string, command: string[], seconds?: number): Promise<Outcome> {
    await this.declare(name, image, command);
    try {
      return await this.outcome(name, seconds);
    } finally {
      await this.remove(name);
    }
  }

  async outcome(name: string, seconds = 120): Promise<Outcome> {
    const group = await eventually(`the end of ${name}`, seconds, async () => {
      const now = await this.get(name);
      const { containerId, message, phase, reason } = now.status!.containers[0]!;
      // Not an end of what was declared before.
      const ended = phase === ContainerPhase.TERMINATED && now.status!.observedGeneration >= now.generation;
      // What is refused stays refused; all else that fails, as on a busy machine, the host tries again.
      const refused = reason === "ImageRefused" || (containerId === "" && message.includes("kernel refused"));
      if (ended || refused) return now;
      throw new Error(`${ContainerPhase[phase]} ${reason}: ${message}`);
    });
    const [container] = group.status!.containers;
    const ended = container!.phase === ContainerPhase.TERMINATED && container!.containerId !== "";
    return {
      ...(ended ? { exitCode: container!.exitCode } : {}),
      output: ended ? await this.environment.agent((client) => client.getLogs(name, "attacker", 100)) : "",
      events: group.status!.events.map(({ reason, message }) => `${reason}: ${message}`).join("\n"),
      rootHashes: container!.sealed,
    };
  }
}
